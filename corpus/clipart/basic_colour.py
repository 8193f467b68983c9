"""The basic colour that a person would name a drawing by, computed from its pixels in a perceptual space (OKLCH)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.drawn.colours import BASIC_COLOURS

_UNCLEAR = len(BASIC_COLOURS)
_BLACK, _GREY, _WHITE = (BASIC_COLOURS.index(name) for name in ("black", "grey", "white"))
_CHROMATIC = 8  # the first eight names have a hue


def basic_colour(rgba: NDArray[np.uint8]) -> str | None:
    """The basic colour of a drawing, or None where no colour holds a clear majority.

    rgba: height x width x 4, straight alpha. A drawing with enough coloured area is named by that area alone (outlines
    and highlights are black and white on most drawings); one without is black, grey or white if nearly all of it is.
    """
    visible = rgba[..., 3] >= 128
    if not visible.any():
        return None
    names = name_pixels(rgba[..., :3][visible])
    shares = np.bincount(names, minlength=_UNCLEAR + 1) / len(names)
    chromatic = shares[:_CHROMATIC].sum() + shares[_UNCLEAR]
    best = int(shares[:_CHROMATIC].argmax())
    if chromatic >= 0.30:
        plain = max(shares[_WHITE], shares[_GREY], shares[_BLACK])
        clear = shares[best] >= 0.68 * chromatic and shares[best] >= 1.4 * plain
        return BASIC_COLOURS[best] if clear else None
    if chromatic <= 0.06:
        best = int(shares[_CHROMATIC:_UNCLEAR].argmax()) + _CHROMATIC
        wanted = 0.88 if best == _WHITE else 0.75
        return BASIC_COLOURS[best] if shares[best] >= wanted else None
    return None


def name_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """An index into `BASIC_COLOURS` for each pixel (of pixels x 3), or one past the end where people would disagree."""
    light, chroma, hue = oklch(rgb)
    names = np.full(len(rgb), _UNCLEAR, dtype=np.int64)

    def paint(name: str, where: Any) -> None:
        names[where] = BASIC_COLOURS.index(name)

    warm = (hue >= 352) | (hue < 38)
    paint("red", warm & (light < 0.68))
    paint("pink", warm & (light >= 0.72))
    paint("brown", warm & (light < 0.45) & (chroma < 0.115))
    paint("pink", ((hue >= 330) | (hue < 12)) & (light >= 0.68))
    paint("pink", (hue >= 322) & (hue < 356) & (light >= 0.56) & (chroma >= 0.20))
    orange = (hue >= 38) & (hue < 80)
    paint("orange", orange & (light >= 0.62) & (chroma >= 0.115))
    paint("brown", orange & (light < 0.60))
    paint("brown", (hue >= 50) & (hue < 90) & (light < 0.66) & (chroma < 0.115))
    paint("yellow", (hue >= 84) & (hue < 116) & (light >= 0.72) & (chroma >= 0.08))
    paint("green", (hue >= 118) & (hue < 172))
    paint("blue", (hue >= 210) & (hue < 287))
    paint("purple", (hue >= 290) & (hue < 322))
    paint("purple", (hue >= 322) & (hue < 332) & (light < 0.56))
    names[chroma < 0.055] = _UNCLEAR  # a tinge
    paint("blue", (hue >= 225) & (hue < 275) & (chroma >= 0.04) & (light >= 0.75))  # the pale blue of skies and seas
    dull = chroma < np.where(light < 0.35, 0.06, 0.032)
    paint("grey", dull)
    paint("black", (dull & (light < 0.38)) | (light < 0.20))
    paint("white", (light > 0.93) & (chroma < 0.04))
    return names


def oklch(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lightness (0-1), chroma and hue (degrees) of sRGB pixels (pixels x 3), by Ottosson's OKLab (2020)."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cone = np.cbrt(linear @ _TO_CONES.T)
    light, green_red, blue_yellow = (cone @ _TO_LAB.T).T
    return light, np.hypot(green_red, blue_yellow), np.degrees(np.arctan2(blue_yellow, green_red)) % 360


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
