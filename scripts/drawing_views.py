"""Drawings as `distil_vision.py` shows them: mirrored, turned and recoloured at random."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache

import PIL.Image

from lorgnette.data.builtin.drawings import Drawing, Drawings, drawings, fit

VIEWS = 8
"""Of each drawing; the first is the drawing itself."""


@dataclass(frozen=True)
class View:
    """Augmentation of a drawing: mirrored, rotated, hue shifted."""

    mirrored: bool = False
    angle: float = 0.0
    hue: int = 0
    """Turn of the colour circle, of 256."""

    @classmethod
    def of(cls, drawing: int, number: int) -> View:
        """View `number` of a drawing."""
        if number == 0:
            return cls()
        rng = random.Random(f"view {drawing} {number}")
        hue = rng.randrange(256) if rng.random() < 0.4 else 0
        return cls(rng.random() < 0.5, rng.uniform(-20, 20) if rng.random() < 0.7 else 0.0, hue)

    def apply(self, picture: PIL.Image.Image) -> PIL.Image.Image:
        """An RGBA picture, changed; a turned one is larger."""
        if self.mirrored:
            picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        if self.hue:
            hue, saturation, value = picture.convert("RGB").convert("HSV").split()
            hue = hue.point([(level + self.hue) % 256 for level in range(256)])
            coloured = PIL.Image.merge("HSV", (hue, saturation, value)).convert("RGB")
            coloured.putalpha(picture.getchannel("A"))
            picture = coloured
        if self.angle:
            picture = picture.rotate(self.angle, PIL.Image.Resampling.BILINEAR, expand=True)
        return picture


class Views(Drawings):
    """The views of all drawings of a split, as drawings: view v of drawing d is number d * VIEWS + v."""

    def __init__(self, split: str) -> None:
        self.table = drawings(split)

    def __len__(self) -> int:
        return len(self.table) * VIEWS

    def __getitem__(self, index: int) -> Drawing:  # type: ignore[override]
        row = self.table[index // VIEWS]
        view = View.of(*divmod(index, VIEWS))
        turn = math.radians(abs(view.angle))
        width = row.width * math.cos(turn) + row.height * math.sin(turn)
        height = row.width * math.sin(turn) + row.height * math.cos(turn)
        colour = None if view.hue else row.colour
        return replace(row, width=round(width), height=round(height), colour=colour)

    def resized(self, index: int, width: int, height: int) -> PIL.Image.Image:
        drawing, number = divmod(index, VIEWS)
        row = self.table[drawing]
        size = fit(row.width, row.height, max(width, height), max(width, height))
        picture = View.of(drawing, number).apply(self.table.resized(drawing, *size))
        return picture.resize((width, height), PIL.Image.Resampling.BILINEAR)


@cache
def views(split: str) -> Views:
    """The views of a split's drawings, made once per process."""
    return Views(split)
