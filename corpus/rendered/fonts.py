"""The typefaces that pages are set in, and ways to write by hand.

Their files lie beside this module, each cut down to the characters that pages use (typefaces/README.md names makers and
licences). Text is laid out by Pillow's own engine, so the same version of Pillow gives the same pixels everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from corpus.rendered.lot import Lot

FOLDER = Path(__file__).with_name("typefaces")

FACES = {
    "sans": ("DejaVuSans", "DejaVuSans-Bold", 1.0),
    "serif": ("DejaVuSerif", "DejaVuSerif-Bold", 1.0),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", 0.97),
    "times": ("Tinos", "Tinos-Bold", 1.16),
    "garamond": ("EBGaramond", "EBGaramond-Bold", 1.2),
    "roboto": ("Roboto", "Roboto-Bold", 1.03),
    "slab": ("RobotoSlab", "RobotoSlab-Bold", 1.02),
    "courier": ("CourierPrime", "CourierPrime-Bold", 1.22),
    "typewriter": ("SpecialElite", "SpecialElite", 1.08),
    "till": ("VT323", "VT323", 1.36),
    "poster": ("Oswald-Bold", "Oswald-Bold", 0.95),
    "marker": ("PermanentMarker", "PermanentMarker", 0.94),
}
"""Name -> the file of the regular and of the bold cut, and by how much to scale them so that all look equally large."""

HANDS = {
    "caveat": ("Caveat", 1.42),
    "kalam": ("Kalam", 1.05),
    "homemade": ("HomemadeApple", 0.95),
    "indie": ("IndieFlower", 1.25),
    "schoolbell": ("Schoolbell", 1.12),
    "patrick": ("PatrickHand", 1.15),
    "reenie": ("ReenieBeanie", 1.55),
}
"""Handwriting -> its file, its scale."""


@lru_cache(maxsize=512)
def _font(file: str, size: int) -> PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.truetype(str(FOLDER / f"{file}.ttf"), size, layout_engine=PIL.ImageFont.Layout.BASIC)


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
    """Handwriting: each word a little turned, raised and spaced."""

    def __init__(self, lot: Lot, hand: str, size: int) -> None:
        file, scale = HANDS[hand]
        self.lot, self.face, self.size = lot, "hand", size
        self.font = _font(file, max(8, round(size * scale)))
        self.gap = size * lot.between(36, 50) / 100
        self.wild = lot.between(3, 12)

    def length(self, text: str) -> int:
        """Width of the text in pixels."""
        words = text.split(" ")
        return int(sum(map(self.font.getlength, words)) + self.gap * (len(words) - 1) + 0.5)

    def put(self, pen: PIL.ImageDraw.ImageDraw, at: tuple[int, int], text: str, ink: int | tuple[int, ...]) -> None:
        """Write so that the text starts at `at`: its left end on the base line."""
        left, base = float(at[0]), at[1]
        for word in text.split(" "):
            if word:
                cut, (right, down) = self._turned(word, self.lot.between(-self.wild, self.wild) / 5)
                rise = self.lot.between(-self.wild, self.wild) / 12
                pen.bitmap((round(left + right), round(base + down + rise)), cut, fill=ink)
            left += self.font.getlength(word) + self.gap

    def _turned(self, word: str, angle: float) -> tuple[PIL.Image.Image, tuple[int, int]]:
        """A word turned by some degrees, and where its picture begins, seen from the left end of the base line."""
        pad = self.size
        width, height = int(self.font.getlength(word)) + 2 * pad, 4 * pad
        base = height * 5 // 8
        canvas = PIL.Image.new("L", (width, height), 0)
        PIL.ImageDraw.Draw(canvas).text((pad, base), word, fill=255, font=self.font, anchor="ls")
        turned = canvas.rotate(angle, PIL.Image.Resampling.BICUBIC, center=(width / 2, base))
        box = turned.getbbox() or (pad, base, pad + 1, base + 1)
        return turned.crop(box), (box[0] - pad, box[1] - base)
