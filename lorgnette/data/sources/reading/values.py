"""Values of rows of all kinds: images in the forms that files hold them in, and texts cut where they may be."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.boundary import Boundary, boundary
from lorgnette.data.sources.reading.download import download
from lorgnette.data.sources.reading.shards import FOLDER, is_url, local_path, read_bytes
from lorgnette.errors import DataError, ImageError
from lorgnette.images import image_source
from lorgnette.inputs.access import MOST_BYTES, SECONDS, AccessError, is_link, read_file
from lorgnette.inputs.image_io import open_header, refusing
from lorgnette.sample import Image
from lorgnette.untrusted import quoted

LONGEST_TEXT = 2000
"""Characters of a unit: a longer text becomes several units, so that a document can be cut within it."""

CUTS = (
    re.compile(r"\n\s*\n\s*"),  # paragraphs
    re.compile(r"\n\s*"),
    re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]"),  # sentences; the space goes with the word behind it
    re.compile(r"(?=\s)"),
)
"""Patterns after which a text may be cut, the best first."""


def cut_text(text: str, longest: int = LONGEST_TEXT) -> list[str]:
    """A text in parts of at most `longest` characters, cut at paragraphs, lines, sentences or words where it has them.

    Nothing is lost: the parts joined are the text.
    """
    parts = []
    while len(text) > longest:
        place = _cut(text, longest)
        parts.append(text[:place])
        text = text[place:]
    return [*parts, text] if text else parts


def _cut(text: str, longest: int) -> int:
    """The last place to cut in the second half of what may stand in a part; `longest` if there is none."""
    for border in CUTS:
        places = [match.end() for match in border.finditer(text, longest // 2, longest) if match.end() > 0]
        if places:
            return places[-1]
    return longest


def missing(row: Mapping[str, Any], column: str, advice: str = "") -> Refused:
    """Return the error for a row without this column, or with null in it."""
    if column in row:
        return Refused("no value", f"{column!r} is null")
    there = ", ".join(name for name in row if name != FOLDER) or "none of those wanted"
    return Refused("no column", f"{column!r} is missing; the row has {there}{advice}")


def read_list(row: Mapping[str, Any], column: str, needed: bool = True) -> list[Any]:
    """A column that holds a list. Raises: Refused if it is missing, null or something else."""
    value = row.get(column)
    if value is None and not needed:
        return []
    if value is None:
        raise missing(row, column)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not a list")
    return list(value)


class Linked(bytes):
    """The bytes of an image beside which a link stood: whoever opted out by that link is found after conversion too."""

    link: str


def read_image(value: Any, row: Mapping[str, Any], where: str) -> Image:
    """An image given as bytes, a dict of `bytes` and `path`, a URL or a path from the row's folder.

    Rows are made by others: what they name is looked for within the source's `boundary`, and nowhere else. An http(s)
    link stays one, for `stored` to fetch; behind any other URL the bytes are read now.
    Raises: Refused if there is none, no such file, or one that the row may not name.
    """
    link = None
    if isinstance(value, Mapping):
        link = value.get("path") or value.get("url")
        value = value.get("bytes") or link
    if isinstance(value, bytes | bytearray | memoryview) and len(value):
        return Image(_beside_link(bytes(value), link))
    if not isinstance(value, str) or not value:
        given = "null or empty" if not value else f"a {type(value).__name__}"
        raise Refused("no image", f"{where} is {given}; expected bytes, a path or a URL")
    found = _linked(value, str(row.get(FOLDER) or ""), where)
    return Image(_beside_link(found.source, link)) if isinstance(found.source, bytes) else found


def _beside_link(content: bytes, link: Any) -> bytes:
    if not (isinstance(link, str) and is_link(link)):
        return content
    linked = Linked(content)
    linked.link = link
    return linked


def _linked(path: str, folder: str, where: str) -> Image:
    try:
        given = image_source(path, where)
    except DataError as error:
        raise Refused("no image", str(error)) from None
    if isinstance(given, bytes):  # a data: URL, or base64
        return Image(given)
    if is_link(path):
        return Image(path)
    try:
        found = find_file(path, folder)
    except DataError as error:
        raise Refused("no image", f"{where} is {error}") from None
    return Image(found)


def find_file(path: str, folder: str) -> Path | bytes:
    """The file that data names, as a path, or as its bytes where it lies behind a URL.

    folder: folder or URL that a relative path starts from, after `image_folder` of the source's settings.
    Raises: DataError if there is none within the source's `boundary`.
    """
    line = boundary()
    if is_url(path):
        line.access.check_scheme(path)
        if (local := local_path(path)) is None:
            return read_bytes(path, MOST_BYTES, SECONDS)
        path = local
    if line.image_folder and not os.path.isabs(path):
        with contextlib.suppress(AccessError):
            return _file_in(path, line.image_folder, line)
    return _file_in(path, folder, line)


def _file_in(path: str, folder: str, line: Boundary) -> Path | bytes:
    local = local_path(folder)
    if local is None:
        if os.path.isabs(path):
            raise AccessError(f"{quoted(path)}, a path of the machine on which the file was written")
        return read_bytes(line.below_url(folder, path), MOST_BYTES, SECONDS)
    access = line.access
    return (access if access.roots else replace(access, roots=(local,))).path(path, local)


def image_size(content: bytes, where: str, most_pixels: int = sys.maxsize) -> tuple[int, int]:
    """Width and height of an image as its header has them; no pixel is decoded.

    Raises: Refused ("unreadable image") for what is no image, or one of too many pixels.
    """
    try:
        with refusing(content, where):
            return open_header(content, most_pixels).size
    except ImageError as error:
        raise Refused("unreadable image", str(error)) from None


def seen(content: bytes, where: str) -> bytes:
    """The content itself, once its header was seen to be an image's. Raises: Refused for anything else."""
    image_size(content, where)
    return content


def fetched(image: Image, where: str) -> Image:
    """An image as the bytes of its file, read or fetched now. Raises: Refused, as `stored`."""
    return Image(stored(image, where)["bytes"])


def stored(image: Image, where: str) -> dict[str, Any]:
    """An image as converters write it: the bytes of its file, as they are. Links are fetched here, once.

    Raises: Refused if the file cannot be read or is no image, or the link cannot be fetched.
    """
    source = image.source
    assert not isinstance(source, PIL.Image.Image), "rows hold files"
    if isinstance(source, str):
        return {"bytes": seen(download(source), where), "path": source}
    if isinstance(source, bytes):
        return {"bytes": seen(bytes(source), where), "path": source.link if isinstance(source, Linked) else None}
    try:
        return {"bytes": seen(read_file(source, MOST_BYTES), where), "path": None}
    except (OSError, AccessError) as error:
        raise Refused("no image", f"{where} cannot be read ({error})") from None
