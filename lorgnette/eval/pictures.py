"""Pictures in results: what names one, and a small copy of it to look at."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
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
        content = _content(source)
    return hashlib.sha256(content).hexdigest()[:16]


def check_image(source: ImageSource) -> None:
    """Decode an image, as small as its format allows. Raises: ImageError if that fails."""
    if not isinstance(source, PIL.Image.Image):
        with _explain(source):
            image = PIL.Image.open(io.BytesIO(_content(source)))
            image.draft("RGB", (64, 64))
            image.load()


def thumbnail(source: ImageSource, side: int = 192) -> bytes:
    """The image as JPEG, upright, on white, and no larger than `side` by `side`. A small image is not enlarged.

    JPEG, because it is written ten times as fast as WebP, and thousands are.
    """
    with _explain(source):
        image = source if isinstance(source, PIL.Image.Image) else PIL.Image.open(io.BytesIO(_content(source)))
        upright = PIL.ImageOps.exif_transpose(image).convert("RGBA")
    upright.thumbnail((side, side))
    small = PIL.Image.new("RGB", upright.size, "white")
    small.paste(upright, mask=upright)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()


@contextlib.contextmanager
def _explain(source: ImageSource) -> Iterator[None]:
    """Turn what decoders raise into an ImageError."""
    try:
        yield
    except PIL.UnidentifiedImageError:
        raise ImageError(f"{_called(source)}: not an image in any known format; remove it or replace it") from None
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"{_called(source)}: cannot be read as an image ({error}); remove it or replace it") from None


def _called(source: ImageSource) -> str:
    return str(source) if isinstance(source, str | Path) else "an image given as bytes"


def _content(source: bytes | str | Path) -> bytes:
    return source if isinstance(source, bytes) else _read(source)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: the image cannot be read ({error.strerror}); check the path") from None
