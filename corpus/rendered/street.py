"""Backgrounds of signs: a street, a wall, a table top, and the plates themselves."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import PIL.ImageDraw

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper

RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

SKIES: tuple[RGB, ...] = ((196, 222, 242), (222, 232, 238), (240, 226, 204), (176, 200, 224))
GROUNDS: tuple[RGB, ...] = ((128, 160, 98), (168, 160, 146), (110, 140, 90), (186, 176, 150))
WALLS: tuple[RGB, ...] = ((200, 170, 145), (178, 120, 98), (214, 206, 190), (160, 170, 176), (222, 200, 160))
LEAVES: tuple[RGB, ...] = ((70, 120, 60), (96, 140, 70), (60, 104, 70))
WOOD: RGB = (120, 88, 58)
STEEL: RGB = (120, 124, 128)
DARK: RGB = (40, 44, 50)
PAIRS: tuple[tuple[RGB, RGB], ...] = (
    ((24, 86, 52), (255, 255, 255)),
    ((30, 66, 140), (255, 255, 255)),
    ((255, 255, 255), (20, 20, 20)),
    ((250, 214, 60), (20, 20, 20)),
    ((150, 30, 36), (255, 255, 255)),
    ((246, 238, 214), (70, 40, 20)),
    ((36, 38, 44), (244, 220, 130)),
    ((255, 255, 255), (160, 20, 30)),
)
"""Colours of a plate and of the letters on it."""
FACES = ("poster", "roboto", "sans", "slab", "serif", "times")
PAPER_WHITE: RGB = (252, 252, 248)


def street(lot: Lot, width: int, height: int) -> Paper:
    """Sky over ground, sometimes with trees."""
    paper = Paper(width, height, ground=lot.one(SKIES))
    horizon = height * lot.between(66, 80) // 100
    paper.pen.rectangle((0, horizon, width, height), fill=lot.one(GROUNDS))
    for _ in range(lot.between(0, 3)):
        x, size = lot.between(0, width), lot.between(24, 60)
        paper.pen.rectangle((x - 4, horizon - size, x + 4, horizon + 4), fill=WOOD)
        paper.pen.ellipse((x - size, horizon - size * 3, x + size, horizon - size // 2), fill=lot.one(LEAVES))
    return paper


def wall(lot: Lot, width: int, height: int) -> Paper:
    """A wall, plain or of bricks."""
    colour = lot.one(WALLS)
    paper = Paper(width, height, ground=colour)
    if lot.chance(50):
        joint: RGB = (max(0, colour[0] - 18), max(0, colour[1] - 18), max(0, colour[2] - 18))
        for row, y in enumerate(range(0, height, 22)):
            paper.pen.line((0, y, width, y), fill=joint)
            for x in range(-(row % 2) * 24, width, 48):
                paper.pen.line((x, y, x, y + 22), fill=joint)
    return paper


def posts(paper: Paper, box: Box, count: int) -> None:
    """Posts that carry a plate which will hang at `box`."""
    left, top, right, _ = box
    places = [(left + right) // 2] if count == 1 else [left + (right - left) // 6, right - (right - left) // 6]
    for x in places:
        paper.pen.rectangle((x - 4, top + 4, x + 4, paper.height - 14), fill=STEEL)


def plate(lines: Sequence[tuple[str, Print]], ground: RGB, ink: RGB, *, pad: int = 14, side: str = "middle") -> Paper:
    """A plate as large as its lines need."""
    width = max(writing.length(text) for text, writing in lines) + 2 * pad
    paper = Paper(width, sum(writing.size * 2 for _, writing in lines) + 2 * pad + 40, margin=pad, ground=ground)
    paper.ink = ink
    for text, writing in lines:
        paper.line(text, writing, side=side)  # type: ignore[arg-type]
    paper.skip(pad // 2)
    paper.cut()
    return framed(paper)


def framed(paper: Paper) -> Paper:
    """The same plate with a thin line around it."""
    paper.pen.rectangle((3, 3, paper.width - 4, paper.height - 4), outline=paper.ink, width=2)
    return paper


def hang(paper: Paper, sign: Paper, box: Box, tilt: float = 0) -> None:
    """Put a plate onto the picture, its middle in the middle of `box`; its text becomes the picture's."""
    whole = PIL.Image.new("L", sign.image.size, 255)
    turned = sign.image.rotate(tilt, PIL.Image.Resampling.BICUBIC, expand=True)
    mask = whole.rotate(tilt, PIL.Image.Resampling.BICUBIC, expand=True)
    x, y = (box[0] + box[2] - turned.width) // 2, (box[1] + box[3] - turned.height) // 2
    paper.image.paste(turned, (x, y), mask)
    paper.lines += sign.lines


def beside(lot: Lot, sign: Paper, *, least: int = 320, below: int = 90) -> tuple[int, int, Box]:
    """Width and height of a picture that shows a plate with room around it, and where the plate hangs."""
    width = max(least, sign.width + lot.between(50, 140))
    left, top = lot.between(24, width - sign.width - 24), lot.between(24, 60)
    return width, top + sign.height + lot.between(below, below + 60), (left, top, left + sign.width, top + sign.height)


def arrow(pen: PIL.ImageDraw.ImageDraw, centre: tuple[int, int], size: int, way: str, ink: RGB) -> None:
    """An arrow that points left, right or up."""
    x, y = centre
    half = size // 2
    shape = [(-half, -size // 6), (0, -size // 6), (0, -half), (half, 0), (0, half), (0, size // 6), (-half, size // 6)]
    turn = {"right": lambda a, b: (a, b), "left": lambda a, b: (-a, b), "up": lambda a, b: (b, -a)}[way]
    points = [turn(a, b) for a, b in shape]
    pen.polygon([(x + a, y + b) for a, b in points], fill=ink)
