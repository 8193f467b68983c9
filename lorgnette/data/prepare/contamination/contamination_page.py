"""The report on benchmarks: what was compared and found, as JSON, and as a page with the pictures side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorgnette.data.prepare.contamination.benchmark_pictures import Pictures
from lorgnette.errors import ImageError
from lorgnette.files import write_json, write_text
from lorgnette.report.html import render_page
from lorgnette.report.thumbnails import data_uri, thumbnail

MOST_SHOWN = 200
"""Pairs in the page; the JSON has all."""
_SIDE = 240
"""Pixels of the longest side of a picture in the page."""
JSON, PAGE = "contamination.json", "contamination.html"


def write_report(
    folder: Path, report: Mapping[str, Any], title: str, read: Callable[[int, int], Any], pictures: Pictures
) -> None:
    """Write both. read: from a record and the number of its image to the image's source."""
    write_json(folder / JSON, dict(report))
    write_text(folder / PAGE, render(report, title, read, pictures))


def render(report: Mapping[str, Any], title: str, read: Callable[[int, int], Any], pictures: Pictures) -> str:
    """The page as HTML."""
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
    return render_page("contamination.html.jinja", {"report": report, "title": title, "pairs": pairs})


def _uri(source: Any) -> str:
    """A small copy of a picture as a URI; empty if it cannot be read."""
    try:
        return data_uri(thumbnail(source, _SIDE))
    except ImageError:
        return ""
