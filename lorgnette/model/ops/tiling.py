"""Work in tiles that stay in a CPU's cache. Elsewhere one tile holds everything, and nothing changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from lorgnette.model.batch import SequenceLengths

ROWS_OF_A_CACHE = 2**20
"""Elements of the widest activation that a CPU works on at a time (4 MiB in float32).

Larger ones leave the cache, and the allocator maps them each time: a fifth of an encoder's time went into pages.
"""

_most_tiles: ContextVar[int | None] = ContextVar("most_tiles", default=None)


@contextlib.contextmanager
def few_tiles(most: int) -> Iterator[None]:
    """Cut no tensor in more than about `most` tiles, larger than a cache if need be: for work that computes nothing."""
    before = _most_tiles.set(most)
    try:
        yield
    finally:
        _most_tiles.reset(before)


def rows_at_a_time(x_TD: Tensor, widest: int) -> int:
    """Rows of a tile, where the widest activation has `widest` elements a row."""
    if x_TD.device.type != "cpu":
        return max(len(x_TD), 1)
    most = _most_tiles.get()
    return max(ROWS_OF_A_CACHE // widest, 1, -(-len(x_TD) // most) if most else 1)


def in_rows(mlp: Callable[[Tensor], Tensor], x_TD: Tensor, widest: int) -> Tensor:
    """`mlp(x_TD)` in tiles of rows, for a function of each row alone."""
    tiles = x_TD.split(rows_at_a_time(x_TD, widest))
    return mlp(x_TD) if len(tiles) == 1 else torch.cat([mlp(tile) for tile in tiles])


def in_images(
    layer: Callable[[Tensor, SequenceLengths], Tensor], x_PD: Tensor, images: SequenceLengths, widest: int
) -> Tensor:
    """`layer(x_PD, images)` in tiles of whole images, for a function of each image alone."""
    tiles = images.pieces(rows_at_a_time(x_PD, widest))
    if len(tiles) == 1:
        return layer(x_PD, images)
    parts = x_PD.split([tile.total for tile in tiles])
    return torch.cat([layer(part, tile) for part, tile in zip(parts, tiles, strict=True)])
