"""Perceptual fingerprints of drawings: which are the same picture, and which so alike that they must share a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

SIDE = 14
"""Side of the thumbnail that stands for a drawing, in pixels."""


def fingerprint(rgba: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A drawing on white as a contrast-normalised grey thumbnail, its mean colour and its shape.

    Returns `SIDE * SIDE` values of zero mean and unit norm, then red, green, blue (0-1) and the log of width / height.
    """
    picture = PIL.Image.fromarray(rgba)
    paper = PIL.Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture)
    thumbnail = np.asarray(paper.convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BOX), dtype=np.float32)
    grey = (thumbnail @ np.array([0.299, 0.587, 0.114], dtype=np.float32)).ravel()
    grey -= grey.mean()
    norm = float(np.linalg.norm(grey))
    grey = grey / norm if norm > 1 else np.zeros_like(grey)
    height, width = rgba.shape[:2]
    colour = thumbnail.reshape(-1, 3).mean(axis=0) / 255
    return np.concatenate([grey, colour, [np.log(width / height)]]).astype(np.float32)


def similarity(many: NDArray[np.float32], one: NDArray[np.float32]) -> tuple[Any, Any, Any]:
    """Correlation of the thumbnails (-1 to 1), largest difference of mean colour (0-1), and difference of log shape."""
    pixels = SIDE * SIDE
    correlation = many[:, :pixels] @ one[:pixels]
    colour = np.abs(many[:, pixels : pixels + 3] - one[pixels : pixels + 3]).max(axis=1, initial=0)
    shape = np.abs(many[:, -1] - one[-1])
    return correlation, colour, shape


def same_picture(many: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the fingerprints that show the same picture as a given one."""
    correlation, colour, shape = similarity(many, one)
    flat = (np.abs(many[:, : SIDE * SIDE]).max(axis=1, initial=0) == 0) & (not one[: SIDE * SIDE].any())
    return np.asarray(((correlation > 0.985) | flat) & (colour < 0.015) & (shape < 0.03))


def similar(many: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mask of the fingerprints so similar to a given one, colours ignored, that both must lie in one split."""
    correlation, _, shape = similarity(many, one)
    return np.asarray((correlation > 0.95) & (shape < 0.15))
