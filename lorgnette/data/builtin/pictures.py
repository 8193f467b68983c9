"""Pictures of drawings as the corpus keeps them: on white, as WebP."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image

from lorgnette.data.builtin.drawings import Drawings

SIDE = 224
"""Longest side of a scene, in pixels."""
QUALITY = 75


def cell(image: PIL.Image.Image) -> dict[str, Any]:
    """An RGB picture as a row holds it."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=6)
    return {"bytes": file.getvalue(), "path": None}


def on_white(table: Drawings, index: int) -> PIL.Image.Image:
    """A drawing at its own shape and stored size."""
    row = table[index]
    canvas = PIL.Image.new("RGB", (row.width, row.height), "white")
    picture = table.resized(index, row.width, row.height)
    canvas.paste(picture, (0, 0), picture)
    return canvas
