"""The page or picture of a `Look`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from lorgnette.files import check_own, is_own_page, new_file, replace_text
from lorgnette.look.heat import overlay, shown_size
from lorgnette.look.look import Look, blind_sentence
from lorgnette.report.html import render_page
from lorgnette.report.thumbnails import data_uri

MOST_WORDS = 24
"""Words that have a map of their own on the page."""
_MARK = "lorgnette look"
"""Text chunk `Software` of a PNG that is written."""


def sentences(found: Look) -> list[str]:
    """Return what the maps are worth, in sentences: for the page and the terminal."""
    return [found.faithfulness.sentence, *([] if found.blind is None else [blind_sentence(found.blind)])]


def render(found: Look, model: str, prompt: str) -> str:
    """The page as HTML."""
    words = [
        {
            "text": word.text or "·",
            "share": float(np.exp(word.logprob)),
            "shown": [_uri(found, number, heat, _most([heat])) for number, heat in enumerate(word.heats)],
        }
        for word in found.words[:MOST_WORDS]
    ]
    return render_page(
        "look.html.jinja",
        {
            "model": model,
            "prompt": prompt,
            "answer": found.answer,
            "sentences": sentences(found),
            "says_something": found.faithfulness.says_something,
            "pictures": [data_uri(_enlarged(one)) for one in found.pictures],
            "maps": [_uri(found, number, heat, _most(found.heats)) for number, heat in enumerate(found.heats)],
            "words": words,
            "left_out": max(0, len(found.words) - MOST_WORDS),
            "removes": found.removes,
        },
    )


def write_look(found: Look, path: Path, model: str, prompt: str) -> None:
    """Write the page, or for a name that ends in `.png` the maps of the whole answer side by side.

    Raises: DiskError if a file is there that lorgnette did not write.
    """
    if path.suffix.lower() != ".png":
        replace_text(path, render(found, model, prompt), is_own_page)
        return
    from PIL.PngImagePlugin import PngInfo

    check_own(path, lambda content: _MARK.encode() in content[:200])
    shown = [overlay(one, heat, _most(found.heats)) for one, heat in zip(found.pictures, found.heats, strict=True)]
    sheet = PIL.Image.new("RGB", (sum(one.width for one in shown), max(one.height for one in shown)), "white")
    left = 0
    for one in shown:
        sheet.paste(one, (left, 0))
        left += one.width
    told = PngInfo()
    told.add_text("Software", _MARK)
    with new_file(path) as beside, beside.open("wb") as file:
        sheet.save(file, "PNG", pnginfo=told)


def _most(heats: list[np.ndarray] | tuple[np.ndarray, ...]) -> float:
    return max((float(heat.max()) for heat in heats), default=0.0)


def _uri(found: Look, number: int, heat: np.ndarray, most: float) -> str:
    return data_uri(overlay(found.pictures[number], heat, most))


def _enlarged(picture: PIL.Image.Image) -> PIL.Image.Image:
    return picture.convert("RGB").resize(shown_size(*picture.size), PIL.Image.Resampling.BICUBIC)
