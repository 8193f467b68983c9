"""Text of data for people: characters that would be invisible, or would change its direction, are spelt out."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible, and part of ordinary words and emoji."""


def visible(text: str) -> str:
    """Text with nothing hidden: control characters and changes of direction are spelt out, newlines kept."""
    if text.isprintable():
        return text
    return "".join(character if character in "\n" + JOINERS else _visible(character) for character in text)


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character == "\t":
        return "⇥\t"
    if category == "Cs":
        return "\ufffd"
    if category in ("Cc", "Cf", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character
