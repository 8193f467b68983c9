"""The typefaces that pages are set in, and ways to write by hand.

They are the DejaVu, STIX and Computer Modern files that ship inside matplotlib, which is needed to make pictures and by
nobody who reads the committed ones. Text is laid out by Pillow's own engine, the same on every machine.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from lorgnette.data.builtin.rendered.lot import Lot
from lorgnette.errors import DataError

FACES = {
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", 1.0),
    "serif": ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", 1.0),
    "mono": ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", 0.95),
    "times": ("STIXGeneral.ttf", "STIXGeneralBol.ttf", 1.17),
    "roman": ("cmr10.ttf", "cmb10.ttf", 1.17),
    "grotesque": ("cmss10.ttf", "DejaVuSans-Bold.ttf", 1.17),
    "typewriter": ("cmtt10.ttf", "cmtt10.ttf", 1.12),
}
"""Name -> file of the regular and of the bold cut, and by how much to scale it so that all look equally large."""

SCRIPT_CAPITALS, LETTERS = 0x1D49C, 26
BOLD_SCRIPT_CAPITALS = 0x1D4D0
SCRIPT_ELSEWHERE = dict(zip("BEFHILMRego", "ℬℰℱℋℐℒℳℛℯℊℴ", strict=True))  # noqa: RUF001
"""Script letters that Unicode has at places of their own, outside the run of the others."""

HANDS = {
    "script": ("STIXGeneralItalic.ttf", SCRIPT_CAPITALS, 1.35),
    "pen": ("STIXGeneralBolIta.ttf", BOLD_SCRIPT_CAPITALS, 1.25),
    "cursive": ("cmti10.ttf", 0, 1.25),
    "capitals": ("DejaVuSans-Oblique.ttf", 0, 1.0),
}
"""Handwriting -> its file, where its capital letters begin (0: at A), its scale."""


@lru_cache(maxsize=1)
def _folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("making pictures of text needs fonts: `pip install 'lorgnette[build-data]'`")
    return Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"


@lru_cache(maxsize=512)
def _font(file: str, size: int) -> PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.truetype(str(_folder() / file), size, layout_engine=PIL.ImageFont.Layout.BASIC)


class Print:
    """A typeface at a size, as letters of a printer. `size` is the height of a line's letters in pixels."""

    def __init__(self, face: str, size: int, bold: bool = False) -> None:
        regular, heavy, scale = FACES[face]
        self.face, self.size = face, size
        self.font = _font(heavy if bold else regular, max(6, round(size * scale)))

    def length(self, text: str) -> int:
        """Width of the text in pixels."""
        return int(self.font.getlength(text) + 0.5)

    def put(self, pen: PIL.ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: int | tuple[int, ...]) -> None:
        """Write so that the text starts at `at`: its left end on the base line."""
        pen.text(at, text, fill=ink, font=self.font, anchor="ls")


class Hand:
    """Handwriting: each letter a little turned, raised and spaced, and the line a little uneven."""

    def __init__(self, lot: Lot, hand: str, size: int) -> None:
        file, self.base, scale = HANDS[hand]
        self.lot, self.hand, self.face, self.size = lot, hand, "hand", size
        self.file, self.points = file, max(8, round(size * scale))
        self.font = _font(file, self.points)
        self.tight = self.points // 11 if self.base else 0
        self.wild = lot.between(4, 10) / 10

    def _glyph(self, letter: str) -> str:
        if not self.base or not (letter.isascii() and letter.isalpha()):
            return letter.upper() if self.hand == "capitals" else letter
        if self.base == SCRIPT_CAPITALS and letter in SCRIPT_ELSEWHERE:
            return SCRIPT_ELSEWHERE[letter]
        if letter.isupper():
            return chr(self.base + ord(letter) - ord("A"))
        return chr(self.base + LETTERS + ord(letter) - ord("a"))

    def _step(self, letter: str) -> float:
        """How far one letter moves the pen, in pixels."""
        if letter == " ":
            return self.size * 0.42
        return self.font.getlength(self._glyph(letter)) - (self.tight if letter.isalpha() else 0)

    def length(self, text: str) -> int:
        """Width of the text in pixels."""
        return int(sum(map(self._step, text)) + 0.5)

    def put(self, pen: PIL.ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: int | tuple[int, ...]) -> None:
        """Write so that the text starts at `at`: its left end on the base line."""
        left, base = float(at[0]), at[1]
        drift = 0.0
        for letter in text:
            drift = 0.8 * drift + self.lot.between(-10, 10) / 10 * self.wild
            if letter != " ":
                angle = self.lot.between(-6, 6) * self.wild
                cut, corner = _turned(self.file, self.points, self._glyph(letter), round(angle))
                pen.bitmap((round(left) - corner[0], round(base + drift) - corner[1]), cut, fill=ink)
            left += self._step(letter)


@lru_cache(maxsize=4096)
def _turned(file: str, points: int, glyph: str, angle: int) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """A letter turned by some degrees, and where in its picture the base line starts."""
    pad = points
    canvas = PIL.Image.new("L", (3 * pad, 3 * pad), 0)
    PIL.ImageDraw.Draw(canvas).text((pad, 2 * pad), glyph, fill=255, font=_font(file, points), anchor="ls")
    turned = canvas.rotate(angle, PIL.Image.Resampling.BILINEAR, center=(pad * 1.3, 2 * pad - points * 0.3))
    box = turned.getbbox() or (pad, pad, pad + 1, pad + 1)
    return turned.crop(box), (pad - box[0], 2 * pad - box[1])
