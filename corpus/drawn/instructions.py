"""Instructions about drawings: what is it, category, colour, count, place, and what differs between two pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator

from corpus.cells import cell
from corpus.drawn.cast import cast, origin
from corpus.drawn.differences import changed
from corpus.drawn.pictures import SIDE
from corpus.drawn.scene_tasks import TASKS
from corpus.drawn.wordings import asked
from corpus.parts import Row


def make_category(split: str, count: int, seed: int) -> Iterator[Row]:
    """Questions about the category of a drawing, alone or among others."""
    return _rows("category", split, count, seed)


def make_colour(split: str, count: int, seed: int) -> Iterator[Row]:
    """The colour of a drawing, alone or among others."""
    return _rows("colour", split, count, seed)


def make_count(split: str, count: int, seed: int) -> Iterator[Row]:
    """Counting questions: all drawings, those of a colour, those of a thing."""
    return _rows("count", split, count, seed)


def make_place(split: str, count: int, seed: int) -> Iterator[Row]:
    """Questions about positions: in the picture, and left of, right of, above or below others."""
    return _rows("place", split, count, seed)


def make_what(split: str, count: int, seed: int) -> Iterator[Row]:
    """Naming questions: about one drawing at its own aspect ratio, and about each thing of a scene."""
    return _rows("what", split, count, seed)


def make_difference(split: str, count: int, seed: int) -> Iterator[Row]:
    """Two pictures, of which the second is the first with one change, or none."""
    players = cast(split, seed, "difference")
    for number in range(count):
        rng = random.Random(f"difference {seed} {split} {number}")
        before, after, one = changed(players, rng, number)
        text = asked(rng, one.wording, one.filled, one.answer, "difference", 0)
        things = [thing.drawing for play in (before, after) for thing in play.things]
        yield {"images": [cell(before.draw()), cell(after.draw())], "texts": [text], "origin": origin(things)}


def _rows(task: str, split: str, count: int, seed: int) -> Iterator[Row]:
    """Rows of a task of `TASKS`."""
    for number in range(count):
        row = TASKS[task](split, seed, number, SIDE)
        texts = [asked(row.rng, one.wording, one.filled, one.answer, task, row.brief) for one in row.asked]
        yield {"images": [cell(row.picture)], "texts": texts, "origin": row.origin}
