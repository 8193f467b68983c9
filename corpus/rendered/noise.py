"""From a clean sheet to a scanned one, and to as few bytes as show it."""

from __future__ import annotations

import io
from typing import cast

import PIL.Image
import PIL.ImageDraw

from corpus.rendered.lot import Lot
from corpus.rendered.paper import LONGEST, Paper
from lorgnette.errors import DataError

TINTS = (255, 255, 244, 235, 224)
LEVELS = 4
"""Greys of a sheet that is not black and white only."""


def lossless(image: PIL.Image.Image) -> bytes:
    """The WebP file of a picture that shows every pixel as it is, with settings that never change."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "WEBP", lossless=True, quality=50, method=4)
    return file.getvalue()


def greys(image: PIL.Image.Image, darkest: int, lightest: int, levels: int = LEVELS) -> PIL.Image.Image:
    """A grey picture in a few equal steps from the darkest grey to the lightest."""
    steps = levels - 1
    table = [(grey * steps + 127) // 255 for grey in range(256)]
    return image.point([darkest + (lightest - darkest) * step // steps for step in table])


def scanned(lot: Lot, paper: Paper) -> bytes:
    """The file of a grey sheet, as a printer or a scanner would leave it: clean mostly, else skewed and specked."""
    image = paper.image.copy()
    look = lot.between(0, 99)
    if paper.pen.fontmode == "1":
        if look < 40:
            _speckle(lot, image)
        return lossless(greys(image, 0, 255, 2))
    if look < 45:
        return lossless(greys(image, 0, 255))
    if look < 85:
        image = _skewed(image, lot.between(-20, 20) / 10)
    if look >= 65:
        _speckle(lot, image)
    return lossless(greys(image, lot.between(0, 70), lot.one(TINTS)))


def _skewed(image: PIL.Image.Image, angle: float) -> PIL.Image.Image:
    """Turned by some degrees, on paper large enough to keep every letter; as it was where that would be too large."""
    turned = image.rotate(angle, PIL.Image.Resampling.BILINEAR, expand=True, fillcolor=255)
    return turned if max(turned.size) <= LONGEST else image


def _speckle(lot: Lot, image: PIL.Image.Image) -> None:
    """Dust: dark and light dots, and sometimes the edge of the next sheet."""
    pen = PIL.ImageDraw.Draw(image)
    width, height = image.size
    for _ in range(width * height // lot.between(6000, 20000)):
        x, y = lot.between(0, width - 1), lot.between(0, height - 1)
        pen.rectangle((x, y, x + lot.between(0, 1), y + lot.between(0, 1)), fill=lot.one((0, 0, 90, 255)))
    if lot.chance(25):
        edge = lot.between(1, 5)
        pen.rectangle((0, 0, edge, height) if lot.chance(50) else (width - edge, 0, width, height), fill=40)


MOST_COLOURS = 1 << 14


def coloured(image: PIL.Image.Image, colours: int = 40) -> bytes:
    """The file of a drawn colour picture, in its most frequent colours where it has more.

    Raises: DataError if it has more than `MOST_COLOURS`: no drawing of ours does.
    """
    found = image.getcolors(MOST_COLOURS)
    if found is None:
        raise DataError(f"a drawing of {image.width} x {image.height} pixels has more than {MOST_COLOURS} colours")
    if len(found) > colours:
        kept = sorted(found, key=lambda pair: (-pair[0], pair[1]))[:colours]
        palette = PIL.Image.new("P", (1, 1))
        palette.putpalette([value for _, colour in kept for value in cast(tuple[int, int, int], colour)])
        image = image.quantize(palette=palette, dither=PIL.Image.Dither.NONE)
    return lossless(image)
