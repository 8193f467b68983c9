"""Files of the page at `/`: HTML, one style sheet, one script. They are the same for everybody, and hold no secret."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

PAGE_FOLDER = Path(__file__).with_name("page")
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Route -> file and media type. They want no key: a browser that opens an address sends none."""


@cache
def _content(name: str) -> bytes:
    return (PAGE_FOLDER / name).read_bytes()


async def page_file(request: Request) -> Response:
    """One of the files."""
    name, kind = PAGE_FILES[request.url.path]
    return Response(_content(name), media_type=kind, headers={"Cache-Control": "no-cache"})
