"""A sheet that is written on from top to bottom. It remembers what was written, in reading order: that is its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import PIL.Image
import PIL.ImageDraw

from corpus.rendered.fonts import Hand, Print
from lorgnette.errors import DataError

LONGEST = 980
"""Most pixels of a side."""
WHITE, BLACK = 255, 0

Writing = Print | Hand
Ink = int | tuple[int, int, int]
Side = Literal["left", "middle", "right"]


class Paper:
    """Width and height in pixels; grey, or in colour if `ground` is. `y` is where the next line starts."""

    def __init__(self, width: int, height: int = LONGEST, *, margin: int = 30, ground: Ink = WHITE) -> None:
        self.image = PIL.Image.new("L" if isinstance(ground, int) else "RGB", (width, height), ground)
        self.pen = PIL.ImageDraw.Draw(self.image)
        self.margin, self.y, self.ground = margin, margin, ground
        self.width, self.height = width, height
        self.ink: Ink = BLACK if isinstance(ground, int) else (0, 0, 0)
        self.lines: list[str] = []

    @property
    def inner(self) -> int:
        """Pixels between the margins."""
        return self.width - 2 * self.margin

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def sharp(self) -> None:
        """Write without grey edges from now on: for sheets that are stored in black and white."""
        self.pen.fontmode = "1"

    def put(
        self, x: int, base: int, text: str, writing: Writing, *, side: Side = "left", ink: Ink | None = None
    ) -> None:
        """Write at a place, without noting it in the text. `x` is the text's left end, middle or right end."""
        length = writing.length(text)
        left = x - {"left": 0, "middle": length // 2, "right": length}[side]
        if left < 0 or left + length > self.width + 2 or base > self.height:
            raise DataError(f"{text!r:.60} does not fit on a sheet of {self.width} x {self.height} at {left}, {base}")
        writing.put(self.pen, (left, base), text, self.ink if ink is None else ink)

    def line(self, text: str, writing: Writing, *, side: Side = "left", indent: int = 0, leading: float = 1.4) -> None:
        """A line of its own between the margins."""
        x = {"left": self.margin + indent, "middle": self.width // 2, "right": self.width - self.margin}[side]
        self.cells([(x, text, side)], writing, leading=leading)

    def cells(self, cells: Sequence[tuple[int, str, Side]], writing: Writing, *, leading: float = 1.4) -> None:
        """Several texts on one line, each at its x."""
        base = self.y + round(writing.size * 1.1)
        for x, text, side in cells:
            self.put(x, base, text, writing, side=side)
        self.note(" ".join(text for _, text, _ in cells if text))
        self.y += round(writing.size * leading)

    def note(self, line: str) -> None:
        """Add a line to the text; it was written by `put`."""
        if line:
            self.lines.append(line)

    def paragraph(self, text: str, writing: Writing, *, indent: int = 0, width: int = 0, leading: float = 1.4) -> None:
        """Text in lines as long as fit."""
        for line in wrap(text, writing, width or self.inner - indent):
            self.line(line, writing, indent=indent, leading=leading)

    def skip(self, pixels: int) -> None:
        self.y += pixels

    def rule(self, *, dashes: bool = False, thick: int = 1) -> None:
        """A line across, between the margins."""
        y = self.y + 4
        if dashes:
            for x in range(self.margin, self.width - self.margin - 4, 8):
                self.pen.line((x, y, x + 4, y), fill=self.ink)
        else:
            self.pen.line((self.margin, y, self.width - self.margin, y), fill=self.ink, width=thick)
        self.y += 8 + thick

    def cut(self, least: int = 0) -> None:
        """End the sheet below what was written, but no higher than `least` pixels."""
        bottom = max(self.y + self.margin // 2, least)
        if bottom > self.height:
            raise DataError(f"what was written needs {bottom} pixels, and the sheet has {self.height}")
        self.image = self.image.crop((0, 0, self.width, bottom))
        self.pen = PIL.ImageDraw.Draw(self.image)
        self.height = bottom


def wrap(text: str, writing: Writing, width: int) -> list[str]:
    """The text in lines of at most `width` pixels (a longer word stands alone)."""
    lines: list[str] = []
    for word in text.split():
        if lines and writing.length(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask about a sheet, and the answer that follows from its facts."""

    form: str
    """Kind of the question, in a word: the facts and `about` give the answer. "says": all that is written."""
    about: tuple[str, ...]
    """Words that the question names."""
    text: str
    answer: str
    """As short as it can be."""
    steps: str = ""
    """The answer with how it is found, where that is more than reading."""
    also: tuple[str, ...] = ()
    """Other right answers, as people would write them."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A picture of text: what it says, the facts behind it, and what can be asked about it."""

    layout: str
    facts: Any
    paper: Paper
    questions: tuple[Question, ...] = ()
    style: str = ""

    @property
    def text(self) -> str:
        """All text, in reading order."""
        return self.paper.text
