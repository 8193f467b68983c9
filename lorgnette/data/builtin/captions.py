"""One clean sentence about one drawing, made from its name, category, colour and keywords."""

from __future__ import annotations

import random

from lorgnette.data.builtin.drawings import Drawing


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNCOUNTABLE = {"food", "stationery"}
OPENINGS = ("A drawing of {thing}", "A picture of {thing}", "This is {thing}", "This drawing shows {thing}")
COLOUR_WORDS = _words(
    """
    red orange yellow green blue purple pink brown black grey gray white gold golden silver
    """
)
VAGUE = _words(
    """
    hash computer icons theme action icon symbol sign geometry shapes shape special recreation work office
    device mapsym signs unsorted application filesystem menu white black simple united nations member transport
    subnational bordered ornamental mimetypes gradients webpage hardware card text color colour desktop
    entertainment activities equipment stock imformation information cartoon silhouette openclipart miscellany
    organizations protein carbohydrate
    """
)
"""Keywords that say nothing about what is to be seen."""


def caption(row: Drawing, rng: random.Random) -> str:
    """A sentence such as "A drawing of a red apple, a kind of food." """
    opening = rng.choice(OPENINGS)
    if row.name is None:
        return _without_name(row, opening, rng)
    thing = with_article(_coloured(row.name, row.colour), row.name)
    if row.category and row.category not in row.name.split():
        return f"{opening.format(thing=thing)}, {kind_of(row.category)}."
    return f"{opening.format(thing=thing)}."


def _without_name(row: Drawing, opening: str, rng: random.Random) -> str:
    words = [word for word in row.keywords if is_plain(word) and word != row.category]
    if row.category:
        thing = with_article(_coloured(row.category, row.colour), row.category)
        about = f" about {words[0]}" if words and row.category in ("sign", "icon", "map") else ""
        return f"{opening.format(thing=thing + about)}."
    if words:
        return f"A drawing about {' and '.join(words[:2])}."
    return f"A {row.colour} drawing." if row.colour else "A drawing."


def is_plain(keyword: str) -> bool:
    """Whether a keyword is one plain word that says something."""
    return keyword.isascii() and keyword.isalpha() and 2 < len(keyword) < 14 and keyword not in VAGUE


def kind_of(category: str) -> str:
    """How a caption mentions the category: "a kind of food", "a person"."""
    return "a person" if category == "person" else f"a kind of {category}"


def _coloured(name: str, colour: str | None) -> str:
    return name if colour is None or COLOUR_WORDS & set(name.split()) else f"{colour} {name}"


def with_article(phrase: str, name: str) -> str:
    """ "a red apple", "an orange boat", "red apples", "food". `name` is the phrase without its colour."""
    head = name.split(" of ")[0].split(" with ")[0].split()[-1]
    plural = head.endswith("s") and not head.endswith(("ss", "us", "is"))
    if plural or head in UNCOUNTABLE:
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
