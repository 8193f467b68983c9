"""Pictures as a row of parquet holds them."""

from __future__ import annotations

import io
from typing import Any

import PIL.Image

QUALITY = 75
"""Of WebP."""


def cell(image: PIL.Image.Image) -> dict[str, Any]:
    """An RGB picture as a row holds it."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=6)
    return {"bytes": file.getvalue(), "path": None}
