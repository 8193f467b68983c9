"""The report on benchmarks: what was compared and found, as JSON, and as a page with the pictures side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import PIL.Image

from lorgnette.data.prepare.contamination.benchmark_pictures import Pictures
from lorgnette.errors import ImageError
from lorgnette.files import write_json, write_text
from lorgnette.inputs.image_io import open_image

MOST_SHOWN = 200
"""Pairs in the page; the JSON has all."""
SIDE = 240
"""Pixels of the longest side of a picture in the page."""
JSON, PAGE = "contamination.json", "contamination.html"


def write_report(
    folder: Path, report: Mapping[str, Any], title: str, read: Callable[[int, int], Any], pictures: Pictures
) -> None:
    """Write both. read: from a record and the number of its image to the image's source."""
    write_json(folder / JSON, dict(report))
    write_text(folder / PAGE, render(report, title, read, pictures))


def render(report: Mapping[str, Any], title: str, read: Callable[[int, int], Any], pictures: Pictures) -> str:
    """The page: it asks nothing of the network and runs no script; what comes from data is escaped."""
    shown = report["matches"][:MOST_SHOWN]
    theirs: dict[tuple[str, str], str] = {}
    for name in {match["benchmark"] for match in shown}:
        wanted = {match["picture"] for match in shown if match["benchmark"] == name}
        theirs |= {(name, label): _uri(content) for label, content in pictures(name) if label in wanted}
    pairs = [
        {
            **match,
            "ours": _uri(read(match["record"], match["image"])),
            "theirs": theirs.get((match["benchmark"], match["picture"]), ""),
        }
        for match in shown
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("contamination.html.jinja").render(report=report, title=title, pairs=pairs)


def _uri(source: Any) -> str:
    """A small copy of a picture as a data URL; empty if it cannot be read."""
    try:
        image = open_image(source)
    except ImageError:
        return ""
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
