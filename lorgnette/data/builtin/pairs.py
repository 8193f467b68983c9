"""Pairs: every drawing at its own shape, with its title as it was given to it, and with a clean sentence."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lorgnette.data.builtin.captions import OPENINGS, caption, kind_of
from lorgnette.data.builtin.compose import decks
from lorgnette.data.builtin.drawings import Drawing, drawings
from lorgnette.data.builtin.labels import a, be, noun_of, sentence
from lorgnette.data.builtin.pictures import cell, on_white

NOT_SAID = ("icon", "shape")
"""Categories of which some things only are that are named after what they show: a star is no kind of icon."""

PROPER = ("flag", "map", "card")
"""Categories whose names are of places and the like: without a label, none is said."""


def make_pairs(split: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Drawing after drawing; from the start again where more are wanted, with other sentences."""
    table, order = drawings(split), decks(split, seed).everything
    for number in range(count):
        rng = random.Random(f"pairs {seed} {split} {number}")
        index = order[number % len(order)]
        row = table[index]
        picture = cell(on_white(table, index))
        yield {"image": picture, "alt": row.title, "caption": clean_caption(row, rng), "origin": [row.id]}


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
