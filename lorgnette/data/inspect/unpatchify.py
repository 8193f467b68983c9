"""Images for people, put together again from the very patches that the model gets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import PIL.Image

from lorgnette.errors import ImageError
from lorgnette.inputs.image import Patches
from lorgnette.inputs.image_io import image_size
from lorgnette.inputs.tiles import Tile
from lorgnette.sample import ImageSource

MOST_SIDE = 392
"""Pixels of the longest side of a picture in a page; larger ones are scaled down."""

Size = tuple[int, int]
"""Width and height in pixels."""

QUADRANTS = ("top left", "top right", "bottom left", "bottom right", "whole")


@dataclass(frozen=True, eq=False)
class Unpatchified:
    """One image, or one crop of it, as the model gets it."""

    rows: int
    columns: int
    side: int
    """Pixels of a patch's side."""
    places: tuple[tuple[int, ...], tuple[int, ...]]
    """Indices of the rows, and of the columns, of patches in the encoder's table of positions."""
    pixels: PIL.Image.Image | None
    """At most `MOST_SIDE` large; None where the picture is counted and not shown."""
    tile: Tile | None = None
    """The tile that it is; None where images are not cut in tiles."""

    @property
    def size(self) -> Size:
        """Pixels that the model gets."""
        return self.columns * self.side, self.rows * self.side

    @property
    def patches(self) -> int:
        return self.rows * self.columns


def picture(patches: Patches, grid: int, shown: bool = True) -> Unpatchified:
    """Rebuild the picture from patches. grid: rows of the encoder's table of positions, as many as its columns."""
    side = math.isqrt(patches.pixels_PC.shape[1] // 3)
    positions = patches.positions_P.reshape(patches.rows, patches.columns)
    rows = tuple(int(position) // grid for position in positions[:, 0])
    columns = tuple(int(position) % grid for position in positions[0])
    pixels = None
    if shown:
        pixels = unpatchify(patches)
        pixels.thumbnail((MOST_SIDE, MOST_SIDE))
    return Unpatchified(patches.rows, patches.columns, side, (rows, columns), pixels, patches.tile)


def unpatchify(patches: Patches) -> PIL.Image.Image:
    """The image that was cut into these patches, pixel for pixel."""
    side = math.isqrt(patches.pixels_PC.shape[1] // 3)
    cells = patches.pixels_PC.reshape(patches.rows, patches.columns, 3, side, side)
    pixels = cells.transpose(0, 3, 1, 4, 2).reshape(patches.rows * side, patches.columns * side, 3)
    return PIL.Image.fromarray(pixels)


def original_size(source: ImageSource) -> Size | None:
    """Width and height of an image, upright and before it is sized, from its header; None where that cannot be read."""
    if isinstance(source, str) and "://" in source:
        return None  # nothing is fetched for a number
    try:
        return image_size(source)
    except ImageError:
        return None
