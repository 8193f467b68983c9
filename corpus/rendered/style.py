"""Style of a sheet: typeface, size and sharpness."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.rendered.fonts import HANDS, Hand, Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper

SHARP = ("sans", "serif", "mono", "roboto")
"""Typefaces that are legible without grey edges."""
SOFT = ("sans", "serif", "times", "times", "garamond", "roboto", "slab", "courier", "typewriter", "mono")


@dataclass(frozen=True, slots=True)
class Style:
    """A typeface and the size of ordinary text in pixels; `sharp`: black and white only."""

    face: str
    size: int
    sharp: bool

    @property
    def plain(self) -> Print:
        return Print(self.face, self.size)

    @property
    def bold(self) -> Print:
        return Print(self.face, self.size, bold=True)

    @property
    def small(self) -> Print:
        return Print(self.face, max(11, self.size - 2))

    def large(self, scale: float = 1.5) -> Print:
        return Print(self.face, round(self.size * scale), bold=True)

    def paper(self, width: int, *, margin: int = 30) -> Paper:
        """An empty grey sheet for text of this style."""
        paper = Paper(width, margin=margin)
        if self.sharp:
            paper.sharp()
        return paper


def style(lot: Lot, least: int = 14, most: int = 18, *, only: tuple[str, ...] = ()) -> Style:
    """A style whose ordinary text is `least` to `most` pixels high."""
    size = lot.between(least, most)
    sharp = lot.chance(45)
    faces = SHARP if sharp else SOFT
    return Style(lot.one([face for face in faces if not only or face in only]), size, sharp)


def hand(lot: Lot, size: int) -> Hand:
    """Somebody's handwriting."""
    return Hand(lot, lot.one(sorted(HANDS)), size)
