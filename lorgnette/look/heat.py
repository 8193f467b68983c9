"""A map of cells as a picture: laid over the image that it is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageColor

from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import Crop, crop_boxes
from lorgnette.inputs.tiles import WHOLE_IMAGE
from lorgnette.look.occlusion import Cell
from lorgnette.report.palette import LIGHT

SHOWN_SIDE = 320
"""Longest side of a picture on the page, in pixels; small ones are enlarged to it."""
DIM = 0.55
"""Brightness that is left where the model did not look, in the overlay."""

Region = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the image."""


def places_of(crops: Sequence[Crop], size: tuple[int, int], config: ImageConfig) -> list[Region]:
    """The part of an image of `size` pixels that each of its crops shows."""
    width, height = size
    if config.policy == "tiles":
        rows, columns = (max(1, *(one.tile[axis] for one in crops if one.tile)) for axis in (0, 1))
        return [_tile(one, rows, columns) for one in crops]
    if config.crop_from is not None:  # the short side becomes `crop_from`, and the middle `longest` pixels are taken
        side = min(width, height) * config.longest / config.crop_from
        left, top = (width - side) / 2 / width, (height - side) / 2 / height
        return [(left, top, 1 - left, 1 - top)] * len(crops)
    boxes = crop_boxes(width, height, len(crops) > 1)
    return [(left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes]


def _tile(crop: Crop, rows: int, columns: int) -> Region:
    if crop.tile is None or crop.tile == WHOLE_IMAGE:
        return 0.0, 0.0, 1.0, 1.0
    row, column = crop.tile
    return (column - 1) / columns, (row - 1) / rows, column / columns, row / rows


def heat(cells: Sequence[Cell], values: np.ndarray, places: Sequence[Region], size: tuple[int, int]) -> np.ndarray:
    """A map over an image: the mean over the crops that show a pixel of the value of its cell.

    cells, values: of the image's crops, which `places` names by their numbers from 0. Shape: height, width of `size`.
    """
    width, height = size
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for cell, value in zip(cells, values, strict=True):
        left, top, right, bottom = places[cell.crop]
        x0, y0, x1, y1 = cell.box
        along = [round(width * (left + share * (right - left))) for share in (x0, x1)]
        down = [round(height * (top + share * (bottom - top))) for share in (y0, y1)]
        part = slice(max(0, down[0]), max(0, down[1])), slice(max(0, along[0]), max(0, along[1]))
        total[part] += value
        count[part] += 1
    return total / np.maximum(count, 1)


def shown_size(width: int, height: int, side: int = SHOWN_SIDE) -> tuple[int, int]:
    """The size at which an image stands on the page. side: the longer one."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def overlay(picture: PIL.Image.Image, heat_HW: np.ndarray, most: float) -> PIL.Image.Image:
    """A picture, dim and grey where `heat` is 0 or less, in its own colours under a warm veil where it is `most`."""
    size = heat_HW.shape[1], heat_HW.shape[0]
    image = picture.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC)
    share = np.clip(heat_HW / most if most > 0 else np.zeros_like(heat_HW), 0, 1)[..., None]
    colours = np.asarray(image, dtype=np.float64)
    grey = np.asarray(image.convert("L"), dtype=np.float64)[..., None] * DIM
    warm = np.array(PIL.ImageColor.getrgb(LIGHT["blind"]), dtype=np.float64)
    veiled = 0.55 * colours + 0.45 * warm
    return PIL.Image.fromarray(np.uint8(np.round((1 - share) * grey + share * veiled)))
