"""What rows of all kinds are made of: images in the forms that files hold them in, and texts cut where they may be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.download import download, is_link
from lorgnette.data.sources.shards import FOLDER, is_url, read_bytes
from lorgnette.errors import DataError
from lorgnette.sample import Image, decode_base64

LONGEST_TEXT = 2000
"""Characters of a unit: a longer text becomes several units, so that a document can be cut within it."""

CUTS = (
    re.compile(r"\n\s*\n\s*"),  # paragraphs
    re.compile(r"\n\s*"),
    re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？]"),  # sentences; the space goes with the word behind it
    re.compile(r"(?=\s)"),
)
"""Where a text may be cut, the best first: behind what matches."""


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
    """What to raise for a row without this column, or with null in it."""
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

    An http(s) link stays one, for `stored` to fetch; behind any other URL the bytes are read now.
    Raises: Refused if there is none, or no such file.
    """
    link = None
    if isinstance(value, Mapping):
        link = value.get("path") or value.get("url")
        value = value.get("bytes") or link
    if isinstance(value, bytes | bytearray | memoryview) and len(value):
        if not (isinstance(link, str) and is_link(link)):
            return Image(bytes(value))
        linked = Linked(value)
        linked.link = link
        return Image(linked)
    if not isinstance(value, str) or not value:
        given = "null or empty" if not value else f"a {type(value).__name__}"
        raise Refused("no image", f"{where} is {given}; expected bytes, a path or a URL")
    return _linked(value, str(row.get(FOLDER) or ""), where)


def _linked(path: str, folder: str, where: str) -> Image:
    if path.startswith("data:"):
        try:
            return Image(decode_base64(path.partition(",")[2], where))
        except DataError as error:
            raise Refused("no image", str(error)) from None
    if is_link(path):
        return Image(path)
    if is_url(path):
        return Image(_remote_bytes(path, where))
    if is_url(folder):
        if os.path.isabs(path):
            raise Refused("no image", f"{where} is {path}, a path of the machine on which the file was written")
        return Image(_remote_bytes(f"{folder}/{path}", where))
    try:
        local = Path(folder) / path
        there = local.is_file()
    except (OSError, ValueError) as error:  # a null character, or a name longer than file systems take
        raise Refused("no image", f"{where} is no path ({error})") from None
    if not there:
        raise Refused("no image", f"{where} is {local}, which does not exist")
    return Image(local)


def _remote_bytes(url: str, where: str) -> bytes:
    try:
        return read_bytes(url)
    except DataError as error:
        raise Refused("no image", f"{where} is {error}") from None


def stored(image: Image, where: str) -> dict[str, Any]:
    """An image as converters write it: the bytes of its file, as they are. Links are fetched here, once.

    Raises: Refused if the file cannot be read, or the link not be fetched.
    """
    source = image.source
    if isinstance(source, str):
        return {"bytes": download(source), "path": source}
    if isinstance(source, bytes):
        return {"bytes": bytes(source), "path": source.link if isinstance(source, Linked) else None}
    try:
        return {"bytes": Path(str(source)).read_bytes(), "path": None}
    except OSError as error:
        raise Refused("no image", f"{where} cannot be read ({error})") from None
