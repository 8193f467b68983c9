"""Pairs: every drawing as it is kept, with its title as it was given to it, and with a clean sentence.

These rows are the drawings themselves: `lorgnette.data.builtin.drawings` reads the same file. Transparent parts lie on
white when a source opens the picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from corpus.drawn.captions import OPENINGS, caption, kind_of
from corpus.drawn.compose import Decks, decks
from corpus.drawn.labels import a, be, noun_of, sentence
from lorgnette.data.builtin.drawings import Drawing

NOT_SAID = ("icon", "shape")
"""Categories of which some things only are that are named after what they show: a star is no kind of icon."""

PROPER = ("flag", "map", "card")
"""Categories whose names are of places and the like: without a label, none is said."""


def make_drawings(split: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Drawing after drawing; from the start again where more are wanted, with other sentences."""
    return rows_of_drawings(decks(split, seed), count, seed)


def rows_of_drawings(shuffled: Decks, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the part `drawings`, in the order of the decks. seed: the one that the decks were shuffled by."""
    table, order = shuffled.drawings, shuffled.everything
    for number in range(count):
        rng = random.Random(f"pairs {seed} {table.split} {number}")
        row = table[order[number % len(order)]]
        columns = asdict(row)
        title = columns.pop("title")
        image = {"bytes": columns.pop("image"), "path": None}
        yield {"image": image, "alt": title, "caption": clean_caption(row, rng), **columns, "origin": [row.id]}


def clean_caption(row: Drawing, rng: random.Random) -> str:
    """ "A drawing of a red apple, a kind of food." By its label where it has one, else by its own name or keywords."""
    noun = noun_of(row)
    if noun is None:
        return caption(replace(row, name=None) if row.category in PROPER else row, rng)
    said = rng.choice(OPENINGS).format(thing=a(noun, row.colour))
    several = be(noun) == "are" and row.category == "person"
    if row.category and row.category not in (*NOT_SAID, *noun.split()) and not several:
        said += f", {kind_of(row.category)}"
    return sentence(said)
