"""One door for images: the only place where a file, a link or somebody's PIL image is opened and decoded.

An image comes from a stranger. Pillow is given a list of raster formats, the size is looked at before anything is
decoded, threads share a budget of memory, and whatever a decoder raises becomes an ImageError that names the image.
"""

from __future__ import annotations

import io
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageFile

from lorgnette.errors import ImageError
from lorgnette.images import ImageSource, image_source
from lorgnette.inputs.access import MOST_BYTES, OWN_HAND, SECONDS, AccessError, ByteBudget, read_file
from lorgnette.inputs.config import MAX_PIXELS, MOST_PIXELS
from lorgnette.inputs.downloader import fetch
from lorgnette.inputs.image_header import check_amount, check_before_opening, declared_sizes, without_large_text
from lorgnette.inputs.pixels import orientation, upright_rgb, upright_rgba, upright_size
from lorgnette.untrusted import quoted, reason_of

FORMATS = (
    *("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "ICO", "ICNS"),
    *("AVIF", "JPEG2000", "DDS", "PCX", "SGI", "TGA"),
)
"""Formats that are decoded, as Pillow names them. None runs a program, and none but the icons holds other images."""
DECODED = frozenset({*FORMATS, "MPO"})
"""Formats that an image may have that is open already: a JPEG of several pictures is called MPO."""
MAX_SIDE = 65_535
"""Pixels of the longest side: the limit of JPEG and GIF, and more than any other picture has."""
MAX_FILE = 512 * 2**20
"""Bytes of an image file that is read; the largest image that may be decoded fits uncompressed."""
MAX_DOWNLOAD, DOWNLOAD_SECONDS = MOST_BYTES, SECONDS
"""Bytes and seconds of the whole of a download."""
BYTES_PER_PIXEL = 20
"""Memory that decoding takes at most: the decoder's canvas, its copy, a white ground, and the result."""
DECODE_MEMORY = 2**30
"""Bytes that the threads of a process may decode into at the same time."""

_REFUSED = (
    (b"%!PS", "EPS files are not accepted; convert it to PNG"),
    (b"\xc5\xd0\xd3\xc6", "EPS files are not accepted; convert it to PNG"),
    (b"%PDF-", "PDF files are not accepted as images; prepare them as documents, or render its pages to PNG"),
    (b"8BPS", "PSD files are not accepted; save it as PNG"),
    (b"\xff\x0a", "JPEG XL files are not accepted; convert it to PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL files are not accepted; convert it to PNG or JPEG"),
    (b"version https://git-lfs", "a pointer of Git LFS, not an image; run `git lfs pull` for the file itself"),
    (b"PK\3\4", "an archive, not an image; unpack it"),
    (b"\x1f\x8b", "compressed with gzip, not an image; unpack it"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


BUDGET = ByteBudget(DECODE_MEMORY)


def open_image(source: ImageSource, name: str = "image", max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode an image to upright RGB, as the original code and upstream's processor see it.

    EXIF orientation is applied, and transparent parts lie on white. Greys of 16 bits keep their upper eight; numbers
    of unknown range are scaled (docs/decisions/0004).

    source: a PIL image, the bytes of an image file, its path or http(s) URL, or another form that
        `images.image_source` takes. Of an animation, the first frame.
    name: how an error refers to the image; a path or URL is named as well.
    Raises: ImageError if it is missing, truncated, not an image, or of more than `max_pixels` pixels.
    """
    with refusing(source, name), decoding(open_header(source, max_pixels)) as image:
        return upright_rgb(image)


def open_rgba(source: ImageSource, name: str = "image", max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode an image to upright RGBA with straight alpha, to be put on another. Otherwise as `open_image`."""
    with refusing(source, name), decoding(open_header(source, max_pixels)) as image:
        return upright_rgba(image)


def glance(
    source: ImageSource, side: int, name: str = "image", max_pixels: int = MAX_PIXELS
) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """An image in upright grey, no finer than needed, and the upright width and height of the whole.

    side: pixels that each side of the result has at least, if the image has them; a JPEG is not decoded much finer.
    Raises: ImageError wherever `open_image` does: the whole file is read, so a truncated one is found.
    """
    with refusing(source, name), decoding(open_header(source, max_pixels)) as image:
        size = upright_size(image)
        if image is not source:
            image.draft("L", (side, side))
        return upright_rgb(image).convert("L"), size


def image_size(source: ImageSource, name: str = "image", max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright width and height in pixels, from the header. Raises: ImageError if it cannot be read or is refused."""
    with refusing(source, name):
        return upright_size(open_header(source, max_pixels))


def image_bytes(source: ImageSource, name: str = "image") -> bytes:
    """The file of an image, as it is, from its bytes, path or URL. Raises: ImageError if it cannot be had."""
    with refusing(source, name):
        source = image_source(source, "it")
        if isinstance(source, PIL.Image.Image):
            raise ImageError("is decoded already; its file is not known any more")
        return _content(source)


def decoded_bytes(image: PIL.Image.Image, name: str = "image") -> bytes:
    """All of a PIL image that decides its looks, as bytes, to name it by. Raises: ImageError, as `open_image`."""
    with refusing(image, name), decoding(open_header(image, MOST_PIXELS)):
        turn = orientation(image)
        pixels = f"{image.mode} {image.size} ".encode() + image.tobytes()
        looks = image.getpalette(), image.info.get("transparency"), turn
        return pixels if looks == (None, None, 1) else pixels + repr(looks).encode()


@contextmanager
def refusing(source: Any, name: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into an ImageError that names the image."""
    if isinstance(source, str | Path):
        name = f"{name} ({quoted(str(source))})"
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except PIL.Image.DecompressionBombError:
        raise ImageError(f"{name}: exceeds the limit of pixels; scale it down or raise max_pixels") from None
    except Exception as error:  # Pillow's plugins raise anything at all on a damaged file
        raise ImageError(f"{name}: cannot be read as an image ({reason_of(error)})") from None


@contextmanager
def decoding(image: PIL.Image.Image) -> Iterator[PIL.Image.Image]:
    """Memory to decode an image that is open, shared fairly among threads."""
    with BUDGET.hold(image.width * image.height * BYTES_PER_PIXEL):
        yield image


def open_header(source: ImageSource, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Open an image without decoding it, and refuse what should not be decoded. To be called within `refusing`."""
    source = image_source(source, "it")
    if isinstance(source, PIL.Image.Image):
        if isinstance(source, PIL.ImageFile.ImageFile) and source.format not in DECODED:
            raise ImageError(
                f"{source.format} files are not accepted; convert it to PNG, or pass `image.convert('RGB')` if you "
                "trust it"
            )
        _check_size(*source.size, max_pixels)
        if source.format == "ICNS" and getattr(source, "fp", None) is not None:
            _check_icon(source, max_pixels)
        check_amount(source, None, max_pixels)
        return source
    content = without_large_text(_content(source))
    for size in declared_sizes(content):
        _check_size(*size, max_pixels)
    check_before_opening(content)
    try:
        with BUDGET.hold(_opening(content)):
            image = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise ImageError(_unknown(content)) from None
    _check_size(*image.size, max_pixels)
    check_amount(image, content, max_pixels)
    _scale_key(image)
    return image


def _opening(content: bytes) -> int:
    """Bytes that opening a file takes beside its own: a WebP gets its canvas then."""
    return sum(8 * width * height for width, height in declared_sizes(content)) if content[8:12] == b"WEBP" else 0


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{width} x {height} pixels are no image")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} x {height} exceeds the limit of {MAX_SIDE} pixels a side; cut it into parts")
    if width * height > max_pixels:
        raise ImageError(
            f"{width} x {height} exceeds the limit of {max_pixels} pixels; scale it down or raise max_pixels"
        )


def _check_icon(image: Any, max_pixels: int) -> None:
    """The sizes within an icon that somebody else opened; Pillow decodes them only now."""
    place = image.fp.tell()
    image.fp.seek(0)
    content = image.fp.read()
    image.fp.seek(place)
    for size in declared_sizes(content):
        _check_size(*size, max_pixels)


def _scale_key(image: PIL.Image.Image) -> None:
    """The transparent grey of a PNG of two or four bits, in the eight bits to which Pillow scales the pixels."""
    tiles, key = getattr(image, "tile", []), image.info.get("transparency")
    factor = {"L;2": 85, "L;4": 17}.get(tiles[0][3] if tiles and isinstance(tiles[0][3], str) else "")
    if image.format == "PNG" and isinstance(key, int) and factor is not None:
        image.info["transparency"] = key * factor


def _content(source: bytes | str | Path) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        try:
            return fetch(source, OWN_HAND, DOWNLOAD_SECONDS, MAX_DOWNLOAD)
        except AccessError as error:
            raise ImageError(f"cannot be downloaded: {error}") from None
    try:
        return read_file(local_path(source), MAX_FILE)
    except AccessError as error:  # a folder, or a device or pipe that would be read without end
        raise ImageError(f"cannot be read as an image ({error})") from None


def local_path(source: str | Path) -> Path:
    """The path of a file, also from a `file:` URL of this machine. Raises: ImageError for one of another machine."""
    if isinstance(source, Path):
        return source  # as it is: it may be one that was checked
    if source[:5].lower() != "file:":
        return Path(source)
    url = urllib.parse.urlsplit(source)
    if url.netloc not in ("", "localhost"):
        raise ImageError(f"is a file of another machine ({quoted(url.netloc)})")
    return Path(urllib.request.url2pathname(url.path))


def _unknown(content: bytes) -> str:
    """Name the kind of a file that no decoder knows, and say what to do."""
    if not content:
        return "is empty, not an image"
    for start, reason in _REFUSED:
        if content.startswith(start):
            return reason
    if content[4:8] == b"ftyp":
        if content[8:12] in _HEIF_BRANDS:
            return "HEIC files are not accepted; convert it to JPEG or PNG"
        return "a film, not an image; give a frame of it"
    head = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "SVG files are not accepted; render it to PNG"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), not an image; give the link of the image itself"
    return "not an image of a known format"


def plain_format(content: bytes) -> str:
    """The format of an upright file of eight bits whose pixels are not transparent; empty for any other file."""
    try:
        with refusing(content, "image"):
            image = open_header(content)
            plain = image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") and orientation(image) == 1
            if plain and image.has_transparency_data:
                plain = open_rgba(content).getchannel("A").getextrema()[0] == 255
            return str(image.format) if plain else ""
    except ImageError:
        return ""
