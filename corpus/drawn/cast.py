"""Scenes of drawings that have a label, so that they can be spoken of by name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import PIL.Image

from corpus.drawn.labels import countable, labelled, labels
from corpus.drawn.layout import GRIDS_FOR, Grid, Placed, Scene, arrange
from corpus.drawn.pictures import SIDE
from lorgnette.data.builtin.drawings import Drawing, Drawings, drawings

RARE = ("flag", "card")
"""Families with a great many nouns: they take the lead in a scene no more often than others."""


@dataclass(frozen=True)
class Play:
    """A scene whose things all have names, no two of one family unless they were asked for."""

    scene: Scene
    drawings: Drawings

    @property
    def things(self) -> tuple[Placed, ...]:
        return self.scene.placed

    @property
    def nouns(self) -> tuple[str, ...]:
        return tuple(noun(thing.drawing) for thing in self.scene.placed)

    @property
    def origin(self) -> list[str]:
        return origin(thing.drawing for thing in self.scene.placed)

    def draw(self) -> PIL.Image.Image:
        return self.scene.draw(self.drawings)


def noun(drawing: Drawing) -> str:
    return labels()[drawing.id].noun


def family(drawing: Drawing) -> str:
    return labels()[drawing.id].family


def origin(made_of: Iterator[Drawing] | Sequence[Drawing]) -> list[str]:
    """Ids of the drawings in a row, each once, in order."""
    return list(dict.fromkeys(drawing.id for drawing in made_of))


class Cast:
    """The labelled drawings of a split, shuffled by the seed and the name of a task alone."""

    def __init__(self, split: str, seed: int, task: str, size: int = SIDE) -> None:
        """size: longest side of the scenes, in pixels."""
        self.side = size
        self.drawings = table = drawings(split)
        rng = random.Random(f"cast {task} {seed} {split}")
        every = [index for index in labelled(table) if table[index].whole]
        plain = [index for index in every if family(table[index]) not in RARE]
        rare = [index for index in every if family(table[index]) in RARE]
        rare = rng.sample(rare, min(len(rare), len(plain) // 5))
        self.leads = tuple(rng.sample([*plain, *rare], len(plain) + len(rare)))
        self.by_family: dict[str, tuple[int, ...]] = {}
        self.by_noun: dict[str, tuple[int, ...]] = {}
        for index in every:
            row = table[index]
            self.by_family[family(row)] = (*self.by_family.get(family(row), ()), index)
            self.by_noun[noun(row)] = (*self.by_noun.get(noun(row), ()), index)
        self.several = tuple(name for name, deck in sorted(self.by_noun.items()) if len(deck) > 1 and countable(name))
        """Nouns of which there may be two in a scene."""

    def lead(self, number: int) -> int:
        """Drawings take turns."""
        return self.leads[number % len(self.leads)]

    def others(self, rng: random.Random, count: int, indices: Sequence[int] = ()) -> list[int]:
        """`count` drawings of families that are not among those of `indices`, each of another one."""
        taken = {family(self.drawings[index]) for index in indices}
        names = rng.sample([name for name in sorted(self.by_family) if name not in taken], count)
        return [rng.choice(self.by_family[name]) for name in names]

    def absent(self, rng: random.Random, play: Play) -> str:
        """A noun, that there may be several of, of a family that the scene does not show."""
        families = {family(thing.drawing) for thing in play.things}
        while True:
            name = rng.choice(sorted(self.by_noun))
            if countable(name) and family(self.drawings[self.by_noun[name][0]]) not in families:
                return name

    def play(self, rng: random.Random, indices: Sequence[int], grid: Grid | None = None) -> Play:
        """The drawings in different cells of a random grid."""
        grid = grid or rng.choice(GRIDS_FOR[len(indices)])
        cells = rng.sample(range(grid.columns * grid.rows), len(indices))
        return self.arranged(rng, indices, grid, cells)

    def arranged(self, rng: random.Random, indices: Sequence[int], grid: Grid, cells: Sequence[int]) -> Play:
        return Play(arrange(rng, self.drawings, indices, grid, cells, self.side), self.drawings)

    def led(self, rng: random.Random, number: int, fewest: int, most: int) -> Play:
        """A scene led by the drawing whose turn it is, with `fewest` to `most` things."""
        first = self.lead(number)
        indices = [first, *self.others(rng, rng.randint(fewest, most) - 1, [first])]
        return self.play(rng, rng.sample(indices, len(indices)))


@lru_cache(maxsize=32)
def cast(split: str, seed: int, task: str, size: int = SIDE) -> Cast:
    """The cast of a task: each task starts with other drawings."""
    return Cast(split, seed, task, size)
