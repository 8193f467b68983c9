"""Forms in which an image arrives: decoded, encoded, as base64, as an array, in an open file."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from lorgnette.errors import DataError
from lorgnette.untrusted import quoted

b64decode = base64.b64decode
with contextlib.suppress(ImportError):  # of the extra `serve`: thirty times faster, and lets other threads run
    from pybase64 import b64decode

ImageSource = PIL.Image.Image | bytes | str | Path
"""A decoded image, the bytes of an image file, or the path or URL of one. `image_source` makes it of other forms."""
_MAX_SOURCE = 512 * 2**20
"""Bytes that are read of an open file."""
_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\1\0", b"icns", b"\0\0\0\x0cjP  ")
"""First bytes of image files; WebP, AVIF and BMP are recognised by later bytes."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*={0,2}\s*")


def image_source(value: Any, where: str = "the image") -> ImageSource:
    """An image in one of the forms of `ImageSource`, of whatever users have.

    value: a PIL image; bytes, a bytearray or memoryview, or an open binary file; a path, URL, `file:` URL, `data:` URL
        or bare base64; a dict of `bytes` and `path` as datasets has it, of which the bytes win; a numpy array or a
        tensor, height x width, height x width x channels or channels x height x width, of 1, 3 or 4 channels, uint8,
        uint16, 0 to 255 or 0 to 1.
    Raises: DataError naming `where`, if it is none of these.
    """
    if isinstance(value, PIL.Image.Image | Path):
        return value
    if isinstance(value, str):
        return _from_text(value, where)
    if isinstance(value, bytes | bytearray | memoryview):
        content = value if isinstance(value, bytes) else bytes(value)
        written = content[:64].lstrip()[:5].lower() == b"data:" or _is_base64_image(content[:64].decode("latin-1"))
        return _from_text(content.decode("latin-1"), where, content) if written else content
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    if isinstance(value, Mapping):
        return _from_mapping(value, where)
    if callable(getattr(value, "read", None)):
        return _from_file(value, where)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return _from_array(value, where)
    raise DataError(
        f"{where}: an image is a PIL image, an array, bytes, a file, a path or a URL, not a {type(value).__name__}"
    )


def _from_mapping(value: Mapping[str, Any], where: str) -> ImageSource:
    """The bytes of a dict of `bytes` and `path`, or else what lies at the path."""
    content, path = value.get("bytes"), value.get("path")
    if isinstance(content, str) and content:  # of a row of JSON
        return decode_base64(content, where)
    if isinstance(content, bytes | bytearray | memoryview) and len(content):
        return image_source(content, where)
    if isinstance(path, str | os.PathLike) and path:
        return image_source(path, where)
    raise DataError(f"{where}: an image that is a mapping needs `bytes` or `path`")


def _from_text(text: str, where: str, otherwise: ImageSource | None = None) -> ImageSource:
    """A `data:` URL or base64 as bytes, and other text as the path or URL that it is."""
    if text[:64].lstrip()[:5].lower() == "data:":
        return _decode_data_url(text, where)
    if _is_base64_image(text) and _BASE64.fullmatch(text):
        try:
            return decode_base64(text, where)
        except DataError:  # a path after all
            pass
    return text if otherwise is None else otherwise


def _is_base64_image(text: str) -> bool:
    """Does a text begin as base64 of an image does? A path does not: images begin with bytes that are no text."""
    head = "".join(text[:64].split())[:32]
    if len(head) < 32 or not _BASE64.fullmatch(head):
        return False
    start = base64.urlsafe_b64decode(head.replace("+", "-").replace("/", "_"))
    return (
        start.startswith(_MAGIC)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or start[4:8] == b"ftyp"
        or (start[:2] == b"BM" and start[6:10] == bytes(4))
    )


def decode_base64(text: Any, where: str) -> bytes:
    """The bytes behind a base64 string, in any of the forms that clients write.

    White space, padding that is missing, the URL-safe alphabet, percent-encoding and a `data:` prefix are understood.
    Raises: DataError naming `where`.
    """
    if isinstance(text, bytes | bytearray | memoryview):
        text = bytes(text).decode("latin-1")
    if not isinstance(text, str):
        raise DataError(f"{where}: the image is not valid base64")
    if text[:64].lstrip()[:5].lower() == "data:":
        return _decode_data_url(text, where)
    return _decode(text, where)


def _decode(text: str, where: str) -> bytes:
    if text and len(text) % 4 == 0:
        with contextlib.suppress(ValueError):  # the plain form of nearly all clients, without copies of megabytes
            return b64decode(text, validate=True)
    if "%" in text:
        text = urllib.parse.unquote(text)
    compact = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        content = b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: the image is not valid base64") from None
    if not content:
        raise DataError(f"{where}: the image is not valid base64 (it is empty)")
    return content


def _decode_data_url(url: str, where: str) -> bytes:
    head, comma, payload = url.partition(",")
    if not comma:
        raise DataError(f"{where}: the `data:` URL has no comma before its data")
    if head.rstrip().lower().endswith(";base64") or _is_base64_image(payload):
        return _decode(payload, where)
    return urllib.parse.unquote_to_bytes(payload)


def _from_file(file: Any, where: str) -> bytes:
    try:
        if callable(getattr(file, "seek", None)) and (not hasattr(file, "seekable") or file.seekable()):
            file.seek(0)
        content = file.read(_MAX_SOURCE + 1)
    except (OSError, ValueError, TypeError) as error:  # closed, or not open for reading
        raise DataError(f"{where}: the file cannot be read ({quoted(str(error))})") from None
    if not isinstance(content, bytes):
        raise DataError(f"{where}: the file gives {type(content).__name__}, not bytes; open it with 'rb'")
    if len(content) > _MAX_SOURCE:
        raise DataError(f"{where}: the file exceeds {_MAX_SOURCE >> 20} MiB")
    return content


def _from_array(value: Any, where: str) -> PIL.Image.Image:
    try:
        if hasattr(value, "detach"):  # a torch tensor, which numpy takes on the CPU and not as bfloat16
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: the {type(value).__name__} is no array of numbers ({quoted(str(error))})") from None
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise DataError(
            f"{where}: an array of shape {array.shape} and type {array.dtype} is no image; it has numbers of height x "
            "width, height x width x channels, or channels x height x width"
        )
    if array.ndim == 3:
        array = _channels_last(array, where)
    pixels = np.ascontiguousarray(_array_levels(array, where))
    return PIL.Image.fromarray(pixels).copy()  # which shares no memory with the caller's


def _channels_last(array: Any, where: str) -> Any:
    """Height x width x channels, by upstream's rule: the side of 1, 3 or 4 values holds the channels."""
    first, last = (array.shape[side] in (1, 3, 4) for side in (0, 2))
    if first and last:  # upstream takes the first
        raise DataError(
            f"{where}: an array of shape {array.shape} has its channels first or last; pass a PIL image instead"
        )
    if not first and not last:
        raise DataError(f"{where}: an array of shape {array.shape} has no side of 1, 3 or 4 channels")
    array = array.transpose(1, 2, 0) if first else array
    return array[:, :, 0] if array.shape[2] == 1 else array


def _array_levels(array: Any, where: str) -> Any:
    """Values as uint8: uint8 and uint16 by their own maximum, others by whether they reach beyond 1 or 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if array.dtype == np.uint16 or (array.dtype.kind in "ui" and low >= 0 and 255 < high <= 65535):
        return (array >> 8).astype(np.uint8)
    if not (low >= 0 and high <= 255):  # NaN is neither
        raise DataError(
            f"{where}: an array with values from {low} to {high} is no image; they lie between 0 and 1 or 0 and 255"
        )
    scaled = array * 255.0 if array.dtype.kind == "f" and high <= 1 else array
    return np.rint(scaled).astype(np.uint8)
