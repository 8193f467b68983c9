"""Pictures in results: the hash that names one, and a check that it can be decoded."""

from __future__ import annotations

import hashlib

import PIL.Image

from lorgnette.inputs.image_io import decoded_bytes, glance, image_bytes, image_size
from lorgnette.sample import ImageSource


def image_digest(source: ImageSource) -> str:
    """Sixteen hex digits that name an image: a hash of its file's bytes, or of its pixels if it is already decoded."""
    if isinstance(source, PIL.Image.Image):
        content = decoded_bytes(source)
    else:
        content = image_bytes(source)
    return hashlib.sha256(content).hexdigest()[:16]


def check_image(source: ImageSource) -> None:
    """Decode an image, as small as its format allows. Raises: ImageError if that fails, or would not be tried.

    One that is decoded already is only asked for its format and size.
    """
    if isinstance(source, PIL.Image.Image):
        image_size(source)
    else:
        glance(source, 64)
