"""Facts of an image that the index keeps: its upright size, and hashes of its bytes and of its pixels."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL.Image

from lorgnette.inputs.image_io import glance, image_bytes
from lorgnette.sample import ImageSource

SIDE = 32
"""Pixels of the thumbnail that is hashed, each way."""
WAVES = 8
"""Waves along each side that the hash looks at."""


class ImageFacts(NamedTuple):
    """Facts of an image in an index."""

    width: int
    height: int
    sha: int
    """First eight bytes of the SHA-256 of the file."""
    look: int
    """Perceptual hash of 64 bits; see `perceptual_hash`."""


def image_facts(source: ImageSource, name: str, max_pixels: int) -> ImageFacts:
    """Read an image once, the whole of it. Raises: ImageError, as `inputs.image.open_image` would."""
    content = image_bytes(source, name)
    grey, (width, height) = glance(content, 2 * SIDE, name, max_pixels)
    return ImageFacts(width, height, short_sha(hashlib.sha256(content).digest()), perceptual_hash(grey))


def short_sha(digest: bytes) -> int:
    """The first eight bytes of a hash as a number: how lists and indexes keep it."""
    return int.from_bytes(digest[:8], "big")


def thumbnail(grey: PIL.Image.Image) -> np.ndarray:
    """A picture as 32 x 32 grey values (float32)."""
    return np.asarray(grey.resize((SIDE, SIDE), PIL.Image.Resampling.BOX), dtype=np.float32)


def perceptual_hash(grey: PIL.Image.Image) -> int:
    """A perceptual hash: for each of the 64 lowest pairs of waves of a thumbnail, whether it is above their median.

    Scaling, compression, and changes of brightness or contrast move few of the bits. The mean is left out.
    """
    waves = (_cosines() @ thumbnail(grey) @ _cosines().T).ravel()
    waves[0] = 0.0
    bits = waves > np.median(waves[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _cosines() -> np.ndarray:
    """The first waves of a cosine transform, one a row (8 x 32, float32)."""
    place, wave = np.arange(SIDE) + 0.5, np.arange(WAVES)
    return np.cos(np.pi / SIDE * wave[:, None] * place[None, :]).astype(np.float32)
