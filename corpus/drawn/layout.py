"""Scenes: one to six drawings on a light canvas, without overlap, each at a place that has a name.

A canvas is a grid of at most three by three cells; a drawing lies near the middle of its cell, so that its place is
never in doubt: its centre lies in the named third (or half) of the picture, well away from the border of the next.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from corpus.drawn.colours import NEIGHBOURS
from lorgnette.data.builtin.drawings import Drawing, Drawings, fit
from lorgnette.data.sources.scenes import Box, DrawingAt, compose

SHAPES = ((8, 8), (8, 6), (6, 8), (8, 5), (5, 8), (8, 4), (4, 8))
"""Width and height of the canvases of several drawings, in eighths of the longest side."""
_ACROSS = {1: ("",), 2: ("left", "right"), 3: ("left", "", "right")}
_DOWN = {1: ("",), 2: ("top", "bottom"), 3: ("top", "", "bottom")}
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")


@dataclass(frozen=True, slots=True)
class Grid:
    """A canvas shape cut in `columns` x `rows` cells. Cell n lies in column n % columns of row n // columns."""

    shape: tuple[int, int]
    columns: int
    rows: int

    @property
    def places(self) -> tuple[str, ...]:
        """The name of each cell's place."""
        names = (f"{down} {across}".strip() for down in _DOWN[self.rows] for across in _ACROSS[self.columns])
        return tuple(name or "middle" for name in names)


def _grids() -> tuple[Grid, ...]:
    """Every grid whose cells are not too small (a third of an eight by four canvas' width) nor too thin (2 : 1)."""
    grids = []
    for shape in SHAPES:
        for columns in (1, 2, 3):
            for rows in (1, 2, 3):
                width, height = shape[0] / columns, shape[1] / rows
                if columns * rows > 1 and min(width, height) >= 2 and max(width, height) <= 2 * min(width, height):
                    grids.append(Grid(shape, columns, rows))
    return tuple(grids)


GRIDS = _grids()
GRIDS_FOR = {
    count: tuple(grid for grid in GRIDS if count <= grid.columns * grid.rows <= max(4, 2 * count + 1))
    for count in range(1, 7)
}
"""For each number of drawings the grids with enough cells, and not so many that the drawings get small for nothing."""
GRIDS_WITH = {
    (place, count): tuple(grid for grid in GRIDS_FOR[count] if place in grid.places)
    for place in PLACES
    for count in range(1, 7)
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A drawing in a scene."""

    index: int
    """Index of the drawing in its split."""
    box: Box
    place: str
    drawing: Drawing

    @property
    def colour(self) -> str | None:
        return self.drawing.colour

    @property
    def category(self) -> str | None:
        return self.drawing.category


@dataclass(frozen=True, slots=True)
class Scene:
    """Contents of a picture and their boxes. `draw` makes the picture."""

    width: int
    height: int
    background: tuple[int, int, int]
    placed: tuple[Placed, ...]

    def draw(self, drawings: Drawings, mirrored: Collection[int] = ()) -> PIL.Image.Image:
        """The picture, RGB, as the package composes it. mirrored: which of `placed` are shown as in a mirror."""
        placed = (
            DrawingAt(drawings, thing.index, thing.box, number in mirrored) for number, thing in enumerate(self.placed)
        )
        return compose(self.width, self.height, self.background, placed)

    def columns(self, mirrored: Collection[int] = ()) -> dict[str, Any]:
        """The columns of a row of kind `scenes` that say what the picture is composed of."""
        return {
            "drawings": [thing.drawing.id for thing in self.placed],
            "boxes": [edge for thing in self.placed for edge in thing.box],
            "mirrored": sorted(mirrored),
            "width": self.width,
            "height": self.height,
            "background": "#{:02x}{:02x}{:02x}".format(*self.background),
        }

    def told_by_colour(self) -> list[Placed]:
        """The drawings that "the red drawing" can mean only one of. None if some drawing has no clear colour."""
        colours = [thing.colour for thing in self.placed]
        if None in colours:
            return []
        return [
            thing
            for thing in self.placed
            if colours.count(thing.colour) == 1 and NEIGHBOURS[str(thing.colour)].isdisjoint(map(str, colours))
        ]

    def told_by_category(self) -> list[Placed]:
        """The drawings that "the animal" can mean only one of. None if some drawing is of no one category."""
        categories = [thing.category for thing in self.placed]
        return [] if None in categories else [thing for thing in self.placed if categories.count(thing.category) == 1]


def random_background(rng: random.Random) -> tuple[int, int, int]:
    """White mostly, else a light tint."""
    if rng.random() < 0.7:
        return (255, 255, 255)
    return (rng.randrange(226, 256), rng.randrange(226, 256), rng.randrange(226, 256))


def single(rng: random.Random, drawings: Drawings, index: int, size: int) -> Scene:
    """One drawing that fills most of a canvas of its own shape (to an eighth of `size`, its longest side in pixels)."""
    row = drawings[index]
    eighth = max(row.width, row.height) / 8
    width, height = (size * max(3, min(8, round(side / eighth))) // 8 for side in (row.width, row.height))
    fill = rng.uniform(0.8, 0.98)
    w, h = fit(row.width, row.height, int(width * fill), int(height * fill))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    return Scene(width, height, random_background(rng), (Placed(index, (left, top, left + w, top + h), "middle", row),))


def arrange(
    rng: random.Random, drawings: Drawings, indices: Sequence[int], grid: Grid, cells: Sequence[int], size: int
) -> Scene:
    """Drawing `indices[n]` in cell `cells[n]` of the grid, each at a random size and slightly off its cell's middle."""
    width, height = size * grid.shape[0] // 8, size * grid.shape[1] // 8
    cell_width, cell_height = width / grid.columns, height / grid.rows
    places = grid.places
    placed = []
    for index, cell in zip(indices, cells, strict=True):
        row = drawings[index]
        fill = rng.uniform(0.72, 0.96)
        w, h = fit(row.width, row.height, int(cell_width * fill), int(cell_height * fill))
        middle = cell_width * (cell % grid.columns + 0.5), cell_height * (cell // grid.columns + 0.5)
        left = _jittered(rng, middle[0], w, cell_width, width)
        top = _jittered(rng, middle[1], h, cell_height, height)
        placed.append(Placed(index, (left, top, left + w, top + h), places[cell], row))
    return Scene(width, height, random_background(rng), tuple(placed))


def _jittered(rng: random.Random, middle: float, side: int, cell: float, canvas: int) -> int:
    """Corner of a drawing of `side` pixels: its centre a little off the cell's middle (an eighth of the cell, and a
    sixteenth of the canvas, at most)."""
    slack = min((cell - side) / 2, cell / 8, canvas / 16)
    return int(middle - side / 2 + rng.uniform(-slack, slack))
