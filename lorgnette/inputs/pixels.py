"""Pixels of any mode as eight bits a channel: upright, on white where they are transparent, in a known range.

docs/decisions/0004 has the rules, and what transformers does in each case.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image

TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the turn that makes an image upright."""

PHOTOMETRIC, BITS = 262, 258
"""Tags of TIFF: the meaning of the values (0: the least is white), and bits of each."""


def orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation: 1 is upright; from 5 on, width and height change places. Metadata that is damaged says 1."""
    try:
        value: Any = image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, OSError, EOFError, struct.error):
        return 1
    while isinstance(value, tuple) and value:
        value = value[0]
    return value if isinstance(value, int) and value in TURNS else 1


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is upright. Pillow turns a TIFF by itself and says its size so."""
    return image.size[::-1] if orientation(image) >= 5 and image.format != "TIFF" else image.size


def upright_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Decode an image that is open: upright, RGB, its transparent parts on white."""
    image = _upright(image)
    if image.has_transparency_data:
        rgba = _straight_alpha(image)
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def upright_rgba(image: PIL.Image.Image) -> PIL.Image.Image:
    """Decode an image that is open: upright, RGBA with straight alpha."""
    return _straight_alpha(_upright(image))


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    if image.format == "ICNS" and image.palette is None and image.mode == "P":  # Pillow lost it
        icon: Any = image
        image = icon.icns.getimage(icon.best_size)
        image.load()
    turn = TURNS.get(orientation(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if turn is None:
        return image
    turned = image.transpose(turn)
    # whoever reads the orientation next, such as an image processor of transformers, would turn it once more
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def _straight_alpha(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of a PNG with 16 bits a channel
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Grey values of 12, 16 or 32 bits, or floats, as L; as LA if one of them is transparent."""
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if image.mode.startswith("I;16"):
        values = np.asarray(image.convert("I"))  # of either byte order
        bits = tags.get(BITS, 16)
        bits = bits[0] if isinstance(bits, tuple) else bits
        levels = (values >> (4 if bits == 12 else 8)).astype(np.uint8)
    elif image.mode == "I" and image.format in ("PPM", "PNG"):
        values = np.asarray(image)
        levels = (values >> 8).astype(np.uint8)  # of 16 bits, which Pillow keeps in 32
    else:
        values = np.asarray(image)
        levels = by_range(values)
    if tags.get(PHOTOMETRIC) == 0:
        levels = 255 - levels
    grey = PIL.Image.fromarray(levels)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(PIL.Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def by_range(values: np.ndarray) -> np.ndarray:
    """Numbers whose maximum no format says, as uint8, by the first of these ranges that holds them all.

    0 to 1 (floats), 0 to 255, 0 to 65535; others are stretched from the least to the greatest. NaN is the least, and
    infinities are the ends.
    """
    is_float = values.dtype.kind == "f"
    finite = values[np.isfinite(values)] if is_float else values
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    low, high = float(finite.min()), float(finite.max())
    ends = next(
        ((0.0, end) for end in ((1.0,) if is_float else ()) + (255.0, 65535.0) if low >= 0 and high <= end), None
    )
    if not is_float and ends is not None:
        return (values >> (0 if ends[1] == 255 else 8)).astype(np.uint8)
    if ends is not None and ends[1] == 255:
        return np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0).astype(np.uint8)  # cut, as Pillow does
    low, high = ends or (low, high)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / max(high - low, 1e-30))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
