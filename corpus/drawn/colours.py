"""The basic colours that drawings are named by, and which of them people may confuse."""

from __future__ import annotations

BASIC_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")
"""The eleven basic colour terms of English (Berlin and Kay 1969)."""

NEIGHBOURS: dict[str, frozenset[str]] = {
    "red": frozenset({"orange", "pink", "brown"}),
    "orange": frozenset({"red", "yellow", "brown", "pink"}),
    "yellow": frozenset({"orange", "white"}),
    "green": frozenset(),
    "blue": frozenset({"purple"}),
    "purple": frozenset({"blue", "pink"}),
    "pink": frozenset({"red", "purple", "orange"}),
    "brown": frozenset({"red", "orange", "black"}),
    "black": frozenset({"grey", "brown"}),
    "grey": frozenset({"black", "white"}),
    "white": frozenset({"grey", "yellow"}),
}
"""Colours that people may confuse: a question never relies on telling two of them apart within one picture."""
