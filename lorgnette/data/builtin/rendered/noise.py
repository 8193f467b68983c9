"""From a clean sheet to a scanned one, and to as few bytes as show it."""

from __future__ import annotations

import io

import PIL.Image
import PIL.ImageDraw

from lorgnette.data.builtin.rendered.lot import Lot
from lorgnette.data.builtin.rendered.paper import Paper

TINTS = (255, 255, 244, 235, 224)
COMPRESSION = 9


def png(image: PIL.Image.Image) -> bytes:
    """The file of a picture, with settings that never change."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()


def greys(image: PIL.Image.Image, darkest: int, lightest: int, levels: int) -> PIL.Image.Image:
    """A grey picture in `levels` (2, 4 or 16) equal steps from the darkest grey to the lightest: 1, 2 or 4 bits."""
    steps = levels - 1
    table = [min(steps, max(0, round(grey * steps / 255))) for grey in range(256)]
    indexed = image.point(table)
    palette = [darkest + (lightest - darkest) * step // steps for step in range(levels)]
    return with_palette(indexed, [(grey, grey, grey) for grey in palette])


def with_palette(indexed: PIL.Image.Image, colours: list[tuple[int, int, int]]) -> PIL.Image.Image:
    """A picture of numbers as one of the colours that they count."""
    picture = PIL.Image.frombytes("P", indexed.size, indexed.tobytes())
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def scanned(lot: Lot, paper: Paper) -> bytes:
    """The PNG file of a grey sheet, as a printer or a scanner would leave it: clean mostly, else skewed and specked."""
    image = paper.image
    look = lot.between(0, 99)
    if paper.pen.fontmode == "1":
        if look < 40:
            _speckle(lot, image)
        return png(image.point([0] * 128 + [255] * 128).convert("1", dither=PIL.Image.Dither.NONE))
    if look < 45:
        return png(greys(image, 0, 255, 4))
    if look < 85:
        angle = lot.between(-20, 20) / 10
        image = image.rotate(angle, PIL.Image.Resampling.BICUBIC, fillcolor=255)
    if look >= 65:
        _speckle(lot, image)
    return png(greys(image, lot.between(0, 70), lot.one(TINTS), 4))


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


def coloured(image: PIL.Image.Image, colours: int = 16) -> bytes:
    """The PNG file of a colour picture, in its most frequent colours."""
    found = image.getcolors(256 * 256 * 16) or []
    if len(found) <= colours:
        return png(image.quantize(colours, PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE))
    kept = [colour for _, colour in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:colours]]
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([value for colour in kept for value in colour])
    return png(image.quantize(palette=palette, dither=PIL.Image.Dither.NONE))
