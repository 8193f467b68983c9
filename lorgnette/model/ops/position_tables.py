"""Learned square tables of positions at other sizes: resized per image by one small matrix along each side.

Interpolation along rows and along columns is linear and separable: a table of g x g becomes R T C', with a matrix for
each of the two lengths. Matrices are made once and kept; `resized_slowly` is their oracle.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lorgnette.model.batch import Grid


def interpolated_positions(table_GD: Tensor, grids: tuple[Grid, ...], rule: str) -> Tensor:
    """Positions of all patches of all images, end to end (P,D), from a table of side x side rows.

    grids: rows and columns of each image. rule: `bicubic`, `bicubic_antialias` or `bilinear_antialias`.
    """
    made = {grid: _resized(table_GD, grid, rule) for grid in dict.fromkeys(grids)}
    return torch.cat([made[grid] for grid in grids]) if grids else table_GD[:0]


def _resized(table_GD: Tensor, grid: Grid, rule: str) -> Tensor:
    side, rows = math.isqrt(len(table_GD)), grid[0]
    if grid == (side, side):
        return table_GD
    down, along = (resize_matrix(new, side, rule, str(table_GD.device)) for new in grid)
    resized = (down @ table_GD.float().view(side, -1)).view(rows, side, -1)  # rows, then the columns of each
    return (along @ resized).flatten(0, 1).to(table_GD.dtype)


@lru_cache(maxsize=2048)
def resize_matrix(new: int, old: int, rule: str, device: str) -> Tensor:
    """Weights by which `old` values along a side become `new` (new, old)."""
    mode, _, antialias = rule.partition("_")
    with torch.inference_mode(False):  # it is kept: a later training step may use it
        # column i is 1 at row i alone; not one channel for each, as torch's antialiasing is wrong for a width of one
        identity = torch.diag(torch.ones(old, device="cpu"))[None, None]
        made = F.interpolate(identity, size=(new, old), mode=mode, align_corners=False, antialias=bool(antialias))
        return made[0, 0].to(device)


def resized_slowly(table_GD: Tensor, grid: Grid, rule: str) -> Tensor:
    """The plain version of one image's positions: the table resized as a picture. The oracle of tests, and what a join
    does once to a table that is given another side.
    """
    side = math.isqrt(len(table_GD))
    mode, _, antialias = rule.partition("_")
    picture = table_GD.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    resized = F.interpolate(picture, size=grid, mode=mode, align_corners=False, antialias=bool(antialias))
    return resized[0].permute(1, 2, 0).flatten(0, 1).to(table_GD.dtype)
