"""Questions about scenes of built-in drawings, with short answers that the picture determines.

Four kinds: `category`, `colour`, `count` and `position`, each in a few forms. A form is one function: given a scene, it
lists everything that can be asked about it without ambiguity, with the answers. `compose.py` makes scenes in which a
wanted answer is the right one, so that answers are balanced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

from corpus.drawn.colours import NEIGHBOURS
from corpus.drawn.layout import PLACES, Placed, Scene

CATEGORIES = (
    "animal",
    "building",
    "card",
    "device",
    "flag",
    "food",
    "icon",
    "map",
    "person",
    "plant",
    "shape",
    "sign",
    "stationery",
    "tool",
    "vehicle",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "brown", "black", "grey")
"""Colours that are asked for. Pink and purple are not: each has fewer than thirty drawings, too few to test on; nor is
white: a white drawing on white paper is seen by its outline."""
KINDS = ("category", "colour", "count", "position")

Asked = tuple[dict[str, str], str]
"""Values for the placeholders of a question's template, and the answer."""


@dataclass(frozen=True)
class Form:
    """One way of asking."""

    name: str
    kind: str
    wordings: tuple[str, ...]
    answers: tuple[str, ...]
    """Every possible answer; each is wanted equally often."""
    options: Callable[[Scene], list[Asked]]
    """All that can be asked about a scene in this form."""


def phrase(place: str) -> str:
    """A place as it stands in a question: "on the left", "in the middle", "at the top left"."""
    return {"left": "on the left", "right": "on the right", "middle": "in the middle"}.get(place, f"at the {place}")


def _alone(scene: Scene) -> list[Placed]:
    return list(scene.placed) if len(scene.placed) == 1 else []


def _together(scene: Scene) -> list[Placed]:
    return list(scene.placed) if len(scene.placed) > 1 else []


def _category_of_one(scene: Scene) -> list[Asked]:
    return [({}, thing.category) for thing in _alone(scene) if thing.category]


def _category_by_colour(scene: Scene) -> list[Asked]:
    told = scene.told_by_colour() if len(scene.placed) > 1 else []
    return [({"colour": str(thing.colour)}, thing.category) for thing in told if thing.category]


def _category_by_place(scene: Scene) -> list[Asked]:
    return [({"place": phrase(thing.place)}, thing.category) for thing in _together(scene) if thing.category]


def _colour_of_one(scene: Scene) -> list[Asked]:
    return [({}, thing.colour) for thing in _alone(scene) if thing.colour in COLOURS]


def _colour_by_place(scene: Scene) -> list[Asked]:
    return [({"place": phrase(thing.place)}, thing.colour) for thing in _together(scene) if thing.colour in COLOURS]


def _colour_by_category(scene: Scene) -> list[Asked]:
    told = scene.told_by_category() if len(scene.placed) > 1 else []
    return [({"category": str(thing.category)}, thing.colour) for thing in told if thing.colour in COLOURS]


def _count_of_all(scene: Scene) -> list[Asked]:
    return [({}, str(len(scene.placed)))]


def _count_of_colour(scene: Scene) -> list[Asked]:
    """Colours that no drawing of the scene may be mistaken for; asking for an absent colour is fair."""
    colours = [thing.colour for thing in scene.placed]
    if None in colours:
        return []
    there = set(map(str, colours))
    return [({"colour": name}, str(colours.count(name))) for name in COLOURS if NEIGHBOURS[name].isdisjoint(there)]


def _where(scene: Scene) -> list[Asked]:
    told = scene.told_by_colour() if len(scene.placed) > 1 else []
    return [({"colour": str(thing.colour)}, thing.place) for thing in told]


def column(thing: Placed) -> int:
    """-1, 0 or 1 for a place on the left, in between, or on the right."""
    return ("right" in thing.place) - ("left" in thing.place)


def line(thing: Placed) -> int:
    """-1, 0 or 1 for a place at the top, in between, or at the bottom."""
    return ("bottom" in thing.place) - ("top" in thing.place)


def _side_by_side(scene: Scene) -> list[Asked]:
    return [
        ({"colour": str(one.colour), "other": str(two.colour)}, "left" if column(one) < column(two) else "right")
        for one, two in permutations(scene.told_by_colour(), 2)
        if column(one) != column(two)
    ]


def _one_above_other(scene: Scene) -> list[Asked]:
    return [
        ({"colour": str(one.colour), "other": str(two.colour)}, "above" if line(one) < line(two) else "below")
        for one, two in permutations(scene.told_by_colour(), 2)
        if line(one) != line(two)
    ]


RELATIONS: dict[str, Callable[[Placed, Placed], int]] = {
    "above": lambda one, two: line(two) - line(one),
    "below": lambda one, two: line(one) - line(two),
    "left of": lambda one, two: column(two) - column(one),
    "right of": lambda one, two: column(one) - column(two),
}
"""Positive where the relation holds, negative where its opposite does; nothing is asked about zero."""


def _related(scene: Scene) -> list[Asked]:
    return [
        (
            {"category": str(one.category), "relation": relation, "other": str(two.category)},
            "yes" if sense > 0 else "no",
        )
        for one, two in permutations(scene.told_by_category(), 2)
        for relation, measure in RELATIONS.items()
        if (sense := measure(one, two))
    ]


def _forms() -> dict[str, Form]:
    kinds, colours = CATEGORIES, COLOURS
    one = ("What kind of thing is this?", "What does this drawing show?")
    main = ("What colour is this drawing?", "What is the main colour of this drawing?")
    many = ("How many drawings are there?", "How many drawings do you see?")
    side = ("Is the {colour} drawing left or right of the {other} one?",)
    over = ("Is the {colour} drawing above or below the {other} one?",)
    forms = (
        Form("category of one", "category", one, kinds, _category_of_one),
        Form(
            "category by colour",
            "category",
            ("What kind of thing is the {colour} drawing?",),
            kinds,
            _category_by_colour,
        ),
        Form("category by place", "category", ("What kind of thing is {place}?",), kinds, _category_by_place),
        Form("colour of one", "colour", main, colours, _colour_of_one),
        Form("colour by place", "colour", ("What colour is the drawing {place}?",), colours, _colour_by_place),
        Form("colour by category", "colour", ("What colour is the {category}?",), colours, _colour_by_category),
        Form("count of all", "count", many, tuple("123456"), _count_of_all),
        Form("count of colour", "count", ("How many {colour} drawings are there?",), tuple("01234"), _count_of_colour),
        Form("where", "position", ("Where is the {colour} drawing?",), PLACES, _where),
        Form("side by side", "position", side, ("left", "right"), _side_by_side),
        Form("one above other", "position", over, ("above", "below"), _one_above_other),
        Form("related categories", "position", ("Is the {category} {relation} the {other}?",), ("yes", "no"), _related),
    )
    return {form.name: form for form in forms}


FORMS = _forms()
"""Every form of question, by name."""

SCHEDULE: dict[str, tuple[str, ...]] = {
    "category": ("category of one", "category by place", "category of one", "category by colour"),
    "colour": ("colour of one", "colour by place", "colour of one", "colour by category"),
    "count": ("count of all", "count of colour"),
    "position": ("where", "side by side", "where", "one above other", "where", "related categories"),
}
"""The forms of each kind, in the order in which they take turns."""
