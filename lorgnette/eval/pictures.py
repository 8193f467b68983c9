"""Pictures in results: what names one, and a small copy of it to look at."""

from __future__ import annotations

import hashlib
import io

import PIL.Image

from lorgnette.inputs.image_io import decoded_bytes, glance, image_bytes, image_size, open_image
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


def thumbnail(source: ImageSource, side: int = 192) -> bytes:
    """The image as JPEG, as models see it, and no larger than `side` by `side`. A small image is not enlarged.

    JPEG, because it is written ten times as fast as WebP, and thousands are. Raises: ImageError, as `open_image`.
    """
    small = open_image(source)
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()
