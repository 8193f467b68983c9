"""Idefics3's tiles: an image resized to whole tiles and cut row by row, with the whole in one tile after them.

One function says how many tiles an image of some size has, for one image or for arrays of them: `tile_grid`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lorgnette.inputs.config import ImageConfig

Sides = TypeVar("Sides", int, np.ndarray)
"""Pixels along a side of one image, or an array of them for many."""
Tile = tuple[int, int]
"""Row and column of a tile in its image, counted from 1; `WHOLE_IMAGE` for the whole image in one tile."""
WHOLE_IMAGE: Tile = (0, 0)


class Slot(NamedTuple):
    """Place of one crop of an image in the text."""

    tokens: int
    """Visual tokens that it becomes."""
    tile: Tile | None = None
    """The tile that it is, which its tag names; None where images are not cut in tiles."""


def tag_of(tile: Tile) -> str:
    """The text by which Idefics3 names a tile. Tokenizers of SmolVLM hold it as one token."""
    return "<global-img>" if tile == WHOLE_IMAGE else f"<row_{tile[0]}_col_{tile[1]}>"


def text_before(last: Tile | None, tile: Tile) -> str:
    """Newlines between two tiles of an image: one after each row, another before the whole. last: None at the start."""
    if last is None or last[0] == tile[0]:
        return ""
    return "\n\n" if tile == WHOLE_IMAGE else "\n"


def tiled_sizes(width: Sides, height: Sides, config: ImageConfig) -> tuple[tuple[Sides, Sides], tuple[Sides, Sides]]:
    """The two sizes (width, height) to which an image is resized in turn; of arrays, arrays.

    First the long side becomes `longest`, and the short one is rounded up to an even number. Then both are raised to
    whole tiles, the short one by the aspect ratio that the first size has (Idefics3ImageProcessor).
    """
    first = _of_ratio(width, height, config.longest)
    short = np.minimum(*first)
    short = np.maximum(short + short % 2, 1)
    wide = np.greater_equal(width, height)
    first = np.where(wide, config.longest, short), np.where(wide, short, config.longest)
    side = config.shortest
    second = _of_ratio(*first, -(-np.maximum(*first) // side) * side)
    both: Any = first, tuple(-(-np.maximum(one, 1) // side) * side for one in second)
    return both


def _of_ratio(width: Any, height: Any, longest: Any) -> tuple[Any, Any]:
    """A size of the same aspect ratio whose long side is given; the short one is cut to a whole number."""
    wide, ratio = np.greater_equal(width, height), width / height
    short = np.where(wide, longest / ratio, longest * ratio).astype(np.int64)
    return np.where(wide, longest, short), np.where(wide, short, longest)


def tile_grid(width: Sides, height: Sides, split: Any, config: ImageConfig) -> tuple[Sides, Sides]:
    """Rows and columns of tiles that an image of this size is cut in: 1 and 1 where it is not split; of arrays, arrays.

    split: one switch, or an array of them. An image of one tile is shown as the whole alone.
    """
    _, (wide, high) = tiled_sizes(width, height, config)
    found: Any = np.where(split, high // config.shortest, 1), np.where(split, wide // config.shortest, 1)
    return found


@lru_cache(maxsize=1024)
def tiles_of(rows: int, columns: int) -> tuple[Tile, ...]:
    """The tiles of an image in their order: row by row, then the whole; of an image of one tile the whole alone."""
    if rows * columns == 1:
        return (WHOLE_IMAGE,)
    return (*((row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)), WHOLE_IMAGE)
