"""Image files made by hand, byte by byte, as no encoder of Pillow's writes them."""

from __future__ import annotations

import io
import struct
import zlib

import PIL.Image


def saved(image: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes] | None = None, extra: bytes = b"") -> bytes:
    """A PNG of any depth and colour type; blank, if no rows are given. extra: chunks before the pixels."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth * width
    packer = zlib.compressobj(9)
    lines = rows if rows is not None else (bytes((bits + 7) // 8) for _ in range(height))
    packed = b"".join(packer.compress(b"\0" + row) for row in lines) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def webp(side: int) -> bytes:
    """A blank lossless WebP: 34 bytes, whatever its size."""
    content = bytearray(saved(PIL.Image.new("RGB", (16, 16)), "WEBP", lossless=True, method=0))
    content[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(content)


def jpeg_without_data(width: int, height: int, end: bytes = b"\xff\xd9") -> bytes:
    """A JPEG that is cut off behind its header."""
    content = saved(PIL.Image.new("RGB", (16, 16)), "JPEG")
    scan, frame = content.rindex(b"\xff\xda"), content.index(b"\xff\xc0")
    head = content[: scan + 2 + struct.unpack(">H", content[scan + 2 : scan + 4])[0]]
    return head[: frame + 5] + struct.pack(">HH", height, width) + head[frame + 9 :] + end


def ico(*images: bytes) -> bytes:
    """An icon of these files, each said to be of 256 pixels a side."""
    place, entries = 6 + 16 * len(images), b""
    for image in images:
        entries += struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(image), place)
        place += len(image)
    return struct.pack("<HHH", 0, 1, len(images)) + entries + b"".join(images)


def icns(image: bytes) -> bytes:
    """A macOS icon of this file, said to be of 1,024 pixels a side."""
    return b"icns" + struct.pack(">I", 16 + len(image)) + b"ic10" + struct.pack(">I", 8 + len(image)) + image


def iptc(data: bytes) -> bytes:
    """An IPTC file that holds another image, of any format."""
    fields = [(3, 60, b"\1\0"), (3, 20, b"\0\x40"), (3, 30, b"\0\x40"), (3, 120, b"\5"), (8, 10, data)]
    return b"".join(struct.pack(">BBBH", 0x1C, a, b, len(value)) + value for a, b, value in fields)


def tiff(width: int, height: int, bits: int, photometric: int, data: bytes, order: str = "<", sample: int = 1) -> bytes:
    """An uncompressed TIFF of one channel, of any number of bits and meaning of its values."""
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8 + 2 + 12 * 10 + 4),
        (277, 1),
        (278, height),
        (279, len(data)),
        (339, sample),
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, value in tags:
        head += struct.pack(order + "HHII", tag, 4, 1, value)
    return head + struct.pack(order + "I", 0) + data
