"""Pictures of single drawings, on white."""

from __future__ import annotations

import PIL.Image

from lorgnette.data.builtin.drawings import Drawings

SIDE = 224
"""Longest side of a scene, in pixels."""


def on_white(table: Drawings, index: int) -> PIL.Image.Image:
    """A drawing at its own shape and stored size."""
    row = table[index]
    canvas = PIL.Image.new("RGB", (row.width, row.height), "white")
    picture = table.resized(index, row.width, row.height)
    canvas.paste(picture, (0, 0), picture)
    return canvas
