"""Receipts drawn by the tests: a shop's name in large letters, lines of items and a total, and questions about them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

SHOPS = {"bakery": (150, 90, 30), "garage": (30, 60, 150), "florist": (20, 130, 50)}
"""Shop -> colour of the band that its name stands on."""


def receipt(shop: str, number: int) -> PIL.Image.Image:
    """A receipt of 96 x 128 pixels; items and total depend on its number."""
    chance = random.Random(number)
    page = PIL.Image.new("RGB", (96, 128), "white")
    pen = PIL.ImageDraw.Draw(page)
    pen.rectangle((0, 0, 95, 40), fill=SHOPS[shop])
    pen.text((4, 8), shop.upper(), fill="white", font=PIL.ImageFont.load_default(18))
    for line in range(3):
        pen.text(
            (4, 46 + 16 * line), f"item {line + 1}   {chance.randint(1, 99)}.{chance.randint(10, 99)}", fill="black"
        )
    pen.text((4, 104), f"TOTAL {chance.randint(10, 999)}", fill="black")
    return page


def row(picture: str, shop: str) -> dict[str, Any]:
    """A question about a receipt with its answer, as OpenAI and TRL write it."""
    asked = [{"type": "image", "path": picture}, {"type": "text", "text": "Which shop is this receipt from?"}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": shop}]}


def write_receipts(folder: Path, count: int) -> Path:
    """Write `count` receipts and `receipts.jsonl` about them; return the path of the file."""
    (folder / "scans").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        shop = list(SHOPS)[number % len(SHOPS)]
        receipt(shop, number).save(folder / f"scans/{number}.png")
        rows.append(row(f"scans/{number}.png", shop))
    path = folder / "receipts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path
