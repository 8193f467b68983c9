"""Labels of drawings, checked by eye: a noun for each of some 1,300 drawings whose own names are noisy or missing.

`labels.tsv` gives the noun, the family (things that people might call by one name: a scene holds one of a family) and
the drawings. Here are also the few rules of English that it takes to speak of them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from corpus.drawn.captions import COLOUR_WORDS
from lorgnette.data.builtin.drawings import Drawing, Drawings

FILE = Path(__file__).with_name("labels.tsv")

PLURAL = frozenset(
    (
        *("french fries", "grapes", "pancakes", "scissors", "glasses", "headphones", "binoculars", "pliers", "shoes"),
        *("dice", "books", "balloons", "gears", "rings", "dancers", "bride and groom"),
    )
)
UNCOUNTED = PLURAL | frozenset(
    (
        *("lasagna", "spaghetti", "bacon", "bread", "milk", "orange juice", "apple juice", "honey", "butter", "cheese"),
        *("corn", "beer", "fire", "Saturn"),
    )
)
"""Nouns without an article."""
SINGLE = frozenset(("sun", "moon", "Earth"))
"""Things that there is one of."""
SAID_WITH_A = ("USB",)
IRREGULAR = {
    "fish": "fish",
    "goldfish": "goldfish",
    "sheep": "sheep",
    "deer": "deer",
    "bison": "bison",
    "wolf": "wolves",
    "leaf": "leaves",
    "policeman": "policemen",
    "policewoman": "policewomen",
    "computer mouse": "computer mice",
    "cup of coffee": "cups of coffee",
    "cactus": "cacti",
    "tooth": "teeth",
    "crayfish": "crayfish",
    "mosquito": "mosquitoes",
    "snowman": "snowmen",
    "tomato": "tomatoes",
}
CHROMATIC = frozenset(("red", "orange", "yellow", "green", "blue", "brown"))
"""Colours that a sentence gives a thing. A black or grey drawing is mostly one in black and white."""


@dataclass(frozen=True, slots=True)
class Label:
    noun: str
    family: str


@cache
def labels() -> dict[str, Label]:
    """The label of each drawing that has one, by its id."""
    found = {}
    with open(FILE, encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            label = Label(row["noun"], row["family"])
            found.update(dict.fromkeys(row["drawings"].split(), label))
    return found


def noun_of(drawing: Drawing) -> str | None:
    label = labels().get(drawing.id)
    return None if label is None else label.noun


@cache
def labelled(table: Drawings) -> tuple[int, ...]:
    """The drawings of a split that have a label."""
    return tuple(index for index, row in enumerate(table) if row.id in labels())


def definite(noun: str) -> bool:
    """Return whether the noun takes "the" even at its first mention: the flag of Brazil, the moon."""
    return noun in SINGLE or noun.startswith("flag of ") or (" of " in noun and noun.split()[-1] in _SUITS)


_SUITS = ("hearts", "spades", "clubs", "diamonds")


def a(noun: str, colour: str | None = None) -> str:
    """The thing as it is first spoken of: "an apple", "a red apple", "bacon", "the sun"."""
    if definite(noun):
        return f"the {noun}"
    phrase = coloured(noun, colour)
    if noun in UNCOUNTED:
        return phrase
    vowel = (phrase[0] in "aeiouAEIOU" and not phrase.startswith(SAID_WITH_A)) or phrase.startswith("hour")
    return f"{'an' if vowel else 'a'} {phrase}"


def the(noun: str) -> str:
    """The thing as it is spoken of again: "the apple"."""
    return noun if noun == "Saturn" else f"the {noun}"


def coloured(noun: str, colour: str | None) -> str:
    """ "red apple", where the colour is one that such a thing is said to have."""
    fits = colour in CHROMATIC and not definite(noun) and not COLOUR_WORDS & set(noun.split()) and noun != "Saturn"
    return f"{colour} {noun}" if fits else noun


def be(noun: str) -> str:
    """ "is" or "are"."""
    return "are" if noun in PLURAL else "is"


def countable(noun: str) -> bool:
    """Return whether a picture may hold two of the thing."""
    return noun not in UNCOUNTED and not definite(noun) and not noun.startswith("map of ")


def plural(noun: str) -> str:
    """ "apples"."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def listed(things: Iterable[str]) -> str:
    """ "a cat, a dog and an owl"."""
    *others, last = things
    return f"{', '.join(others)} and {last}" if others else last


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "?", "!")) else ".")
