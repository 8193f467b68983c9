"""Spot the difference: a scene, and the same scene with one change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from corpus.drawn.cast import Cast, Play
from corpus.drawn.labels import a, be, the
from corpus.drawn.layout import GRIDS_FOR, Grid
from corpus.drawn.named_questions import Asked
from corpus.drawn.questions import phrase
from corpus.drawn.wordings import Wording

CHANGES = ("gone", "new", "replaced", "moved", "swapped", "same")
"""Kinds of change between two pictures, in the order in which rows cycle through them."""
_ASKED = (
    "What is different in the second picture?",
    "Spot the difference between the two pictures.",
    "What has changed from the first picture to the second?",
    "Compare the two pictures: what is not the same?",
    "These two pictures are alike but for one thing at most. What is it?",
)
WORDINGS = {
    "gone": (
        "{The} {place} {is} gone.",
        "The second picture no longer has {the} {place}.",
        "{The} {place} {is} missing in the second picture.",
    ),
    "new": (
        "In the second picture there {is} also {it} {place}.",
        "{It} {has} been added {place}.",
        "The second picture has {it} {place}; the first has not.",
    ),
    "replaced": (
        "{Place}, {the} {has} been replaced by {new}.",
        "Instead of {the}, the second picture has {new} {place}.",
        "{The} {place} became {new}.",
    ),
    "moved": (
        "{The} {has} moved: it was {place} and is {now} now.",
        "In the second picture {the} {is} {now} instead of {place}.",
    ),
    "swapped": (
        "{The} and {other} have changed places.",
        "{Place} there is {other} now, and {the} {is} {now}: the two have changed places.",
    ),
    "same": ("Nothing has changed.", "There is no difference.", "Nothing: the two pictures are the same."),
}


def changed(players: Cast, rng: random.Random, number: int) -> tuple[Play, Play, Asked]:
    """Both scenes, and what differs. Changes take turns, and so do the things that change."""
    change = CHANGES[number % len(CHANGES)]
    first = players.lead(number)
    indices = [first, *players.others(rng, rng.randint(1, 3), [first])]
    spare = players.others(rng, 1, indices)[0]
    grid = rng.choice([grid for grid in GRIDS_FOR[len(indices)] if grid.columns * grid.rows > len(indices)])
    free = rng.sample(range(grid.columns * grid.rows), len(indices) + 1)
    cells, empty = free[:-1], free[-1]
    background = players.arranged(rng, indices, grid, cells).scene.background
    jitter = rng.random()

    def scene(things: Sequence[int], at: Sequence[int]) -> Play:
        """The same drawing in the same cell lies at the same place."""
        placed = [_alone(players, thing, grid, cell, jitter) for thing, cell in zip(things, at, strict=True)]
        whole = replace(placed[0].scene, background=background, placed=tuple(one.things[0] for one in placed))
        return Play(whole, players.drawings)

    before, after = scene(indices, cells), scene(indices, cells)
    if change == "gone":
        after = scene(indices[1:], cells[1:])
    elif change == "new":
        before = scene(indices[1:], cells[1:])
    elif change == "replaced":
        after = scene([spare, *indices[1:]], cells)
    elif change == "moved":
        after = scene(indices, [empty, *cells[1:]])
    elif change == "swapped":
        after = scene(indices, [cells[1], cells[0], *cells[2:]])
    return before, after, _said(change, before, after)


def _alone(players: Cast, index: int, grid: Grid, cell: int, jitter: float) -> Play:
    rng = random.Random(f"{jitter} {index} {cell}")
    return players.arranged(rng, [index], grid, [cell])


def _said(change: str, before: Play, after: Play) -> Asked:
    """The change in a sentence: of the first thing of the scene that has it."""
    one = after if change == "new" else before
    thing, name = one.things[0], one.nouns[0]
    place = phrase(thing.place)
    filled = {"the": the(name), "The": _capital(the(name)), "is": be(name), "it": a(name), "It": _capital(a(name))}
    filled |= {"has": "have" if be(name) == "are" else "has", "place": place, "Place": _capital(place)}
    filled |= {"now": phrase(after.things[0].place), "new": a(after.nouns[0])}
    if change == "swapped":
        filled["other"] = the(before.nouns[1])
    return Asked(change, Wording(_ASKED, WORDINGS[change]), change, filled)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
