"""Pictures in results: what names one, and a small copy of it to look at."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from lorgnette.errors import ImageError
from lorgnette.sample import ImageSource


def image_digest(source: ImageSource) -> str:
    """Sixteen hex digits that name an image: a hash of its file's bytes, or of its pixels if it is already decoded."""
    if isinstance(source, PIL.Image.Image):
        content = f"{source.mode} {source.size} ".encode() + source.tobytes()
    else:
        content = source if isinstance(source, bytes) else _read(source)
    return hashlib.sha256(content).hexdigest()[:16]


def thumbnail(source: ImageSource, side: int = 192) -> bytes:
    """The image as JPEG, upright, on white, and no larger than `side` by `side`. A small image is not enlarged.

    JPEG, because it is written ten times as fast as WebP, and thousands are.
    """
    try:
        if isinstance(source, PIL.Image.Image):
            image = source
        else:
            image = PIL.Image.open(io.BytesIO(source if isinstance(source, bytes) else _read(source)))
        upright = PIL.ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        where = str(source) if isinstance(source, str | Path) else "an image given as bytes"
        raise ImageError(f"{where}: not an image that can be read ({error}); remove it or replace it") from None
    upright.thumbnail((side, side))
    small = PIL.Image.new("RGB", upright.size, "white")
    small.paste(upright, mask=upright)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: the image cannot be read ({error.strerror}); check the path") from None
