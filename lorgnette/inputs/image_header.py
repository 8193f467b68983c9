"""Checks of an image file before a decoder sees it: declared sizes, amounts of data, and text that nobody reads.

Some decoders allocate or decode everything as soon as a file is opened, others accept a file that holds no pixels at
all. These functions read the few bytes that say so, and decode nothing.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import PIL.Image
import PIL.ImageFile

from lorgnette.errors import ImageError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG2000 = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and of the segment with its size."""

TEXT_BYTES = 2**20
"""Bytes of one text or profile of a PNG, once inflated; Pillow refuses the whole image for a longer one."""
ALL_TEXT_BYTES = 16 * 2**20
"""Bytes of all texts of a PNG together."""
SLOW_VALUES = 4_000_000
"""Values (pixels times channels) of an image that Pillow decodes in Python, about a microsecond each."""
MOST_SCANS = 200
"""Scans of a progressive JPEG; encoders write about ten, and each costs a pass over all of the image."""
ORDINARY_PIXELS = 4_000_000
PIXELS_PER_BYTE = 65_536
"""An image of more than `ORDINARY_PIXELS` has at most so many pixels a byte of its file. A blank page of a scanner
(TIFF, group 4) has up to 40,000."""
HEADER_BYTES = 2**16
"""Bytes within which the header of a PPM ends; Pillow reads it a byte at a time."""

_PPM_HEADER = re.compile(rb"P[0-6fy](CMYK|RGBA|P)?((\s|#[^\r\n]*[\r\n])+[-.\w]+){2,3}\s")

_Size = tuple[int, int]


def declared_sizes(content: bytes) -> Iterator[_Size]:
    """Width and height of what Pillow decodes, or allocates, in the moment it opens the file: WebP, ICO and ICNS."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        yield from _webp_size(content)
    elif content[:4] == b"\0\0\1\0":
        for place in range(6, min(6 + 16 * int.from_bytes(content[4:6], "little"), len(content) - 15), 16):
            yield from _embedded_size(content[int.from_bytes(content[place + 12 : place + 16], "little") :][:64])
    elif content[:4] == b"icns":
        for number, block in enumerate(_icns_blocks(content)):
            if number >= 1000:
                raise ImageError("has more than 1,000 parts; save it as PNG")
            yield from _embedded_size(block)


def _webp_size(content: bytes) -> Iterator[_Size]:
    kind = content[12:16]
    if kind == b"VP8X" and len(content) >= 30:
        yield int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    elif kind == b"VP8L" and len(content) >= 25:
        bits = int.from_bytes(content[21:25], "little")
        yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and len(content) >= 30:
        width, height = struct.unpack("<2H", content[26:30])
        yield width & 0x3FFF, height & 0x3FFF


def _embedded_size(block: bytes) -> Iterator[_Size]:
    """The size of an image within an icon: PNG, JPEG 2000 or, in ICO, a BMP of twice its height."""
    start = block.find(JPEG2000) + 4
    if block[:8] == PNG and len(block) >= 24:
        width, height = struct.unpack(">2I", block[16:24])
        yield width, height
    elif start >= 4 and len(block) >= start + 20:
        right, bottom, left, top = struct.unpack(">4I", block[start + 4 : start + 20])
        yield max(0, right - left), max(0, bottom - top)
    elif block[:4] == struct.pack("<I", 40) and len(block) >= 12:
        width, height = struct.unpack("<2i", block[4:12])
        yield abs(width), abs(height) // 2


def _icns_blocks(content: bytes) -> Iterator[bytes]:
    place = 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "big")
        if length < 8:
            return
        yield content[place + 8 : place + min(length, 4096)]
        place += length


def without_large_text(content: bytes) -> bytes:
    """A PNG without the texts and colour profiles for whose size Pillow would refuse it. Other files as they are."""
    if content[:8] != PNG:
        return content
    kept, place, start, total = [], 8, 0, 0
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            inflated = _inflated_bytes(content[place + 4 : place + 8], content[place + 8 : end - 4])
            if inflated > TEXT_BYTES or total + inflated > ALL_TEXT_BYTES:
                kept.append(content[start:place])
                start = end
            else:
                total += inflated
        place = end
    return b"".join([*kept, content[start:]]) if kept else content


def _inflated_bytes(kind: bytes, chunk: bytes) -> int:
    """Bytes of a text chunk once inflated, counted no further than just beyond `TEXT_BYTES`."""
    packed = chunk.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = packed[2:].partition(b"\0")[2].partition(b"\0")[2] if packed[:1] == b"\1" else b""
    elif kind == b"tEXt":
        packed = b""
    else:
        packed = packed[1:]
    if not packed:
        return len(chunk)
    try:
        return len(zlib.decompressobj().decompress(packed, TEXT_BYTES + 1))
    except zlib.error:  # Pillow passes over it
        return 0


def check_before_opening(content: bytes) -> None:
    """Refuse a file whose header alone would take long. Raises: ImageError."""
    is_ppm = content[:1] == b"P" and content[1:2] in b"0123456fyF"
    if is_ppm and len(content) > HEADER_BYTES and not _PPM_HEADER.match(content[:HEADER_BYTES]):
        raise ImageError(f"the header of the PPM does not end within {HEADER_BYTES:,} bytes")


def check_amount(image: PIL.Image.Image, content: bytes | None, max_pixels: int) -> None:
    """Refuse an opened file that has no data for its pixels, or that takes far too long to decode.

    content: the file, or None for one that somebody else opened. Raises: ImageError.
    """
    pixels, tiles = image.width * image.height, getattr(image, "tile", [])
    if any(tile[0] in PIL.Image.DECODERS for tile in tiles) and pixels * len(image.getbands()) > SLOW_VALUES:
        raise ImageError(
            f"{image.width} x {image.height} pixels of this kind of {image.format} take too long to decode; "
            "save it as PNG"
        )
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        if _number(tags.get(322)) * _number(tags.get(323)) > max_pixels:
            raise ImageError(f"its tiles exceed the limit of {max_pixels} pixels")
    if content is None:
        return
    if image.format in ("JPEG", "MPO"):
        if image.info.get("progressive") and content.count(b"\xff\xda") > MOST_SCANS:
            raise ImageError(f"has more than {MOST_SCANS} scans; save it again")
        file = getattr(image, "fp", None)
        data = len(content) - (file.tell() if file is not None and image.format == "JPEG" else 0)
        too_short = data * 1024 < pixels  # a block of 64 pixels takes a bit at least; half a bit is asked for
    elif content[:8] == PNG:
        depth, colour = content[24], content[25]
        bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
        too_short = len(content) * 1032 < image.height * (image.width * bits // 8)  # deflate packs 1032 : 1 at best
    else:
        too_short = pixels > ORDINARY_PIXELS and len(content) * PIXELS_PER_BYTE < pixels
    if too_short:
        raise ImageError(f"{len(content):,} bytes cannot hold {image.width} x {image.height} pixels; it is cut off")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
