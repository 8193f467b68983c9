"""WebDataset archives: members of one key are a sample, read in order and never written anywhere."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from lorgnette.data.sources.compressed import FAULTS, open_expanded
from lorgnette.errors import DataError
from lorgnette.untrusted import parse_json, quoted

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("txt", "text", "caption", "cap")
MOST_BYTES = 64 * 2**20
"""Bytes of one member."""
MOST_MEMBERS = 64
"""Members of one sample."""
CAPTION = "txt"
"""The column of a sample's text."""

Member = tuple[str, str, bytes | None]
"""Key and ending of a member, and its bytes; None for one that is too long."""


def samples_of(path: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The samples of an archive by their keys: the fields of a `.json`, `images`, and `txt`; or why there is none.

    Raises: DataError if the archive cannot be read from some place on.
    """
    for key, members in groupby(_members(path), key=lambda one: one[0]):
        found = {}
        for number, (_, ending, content) in enumerate(members):
            if number < MOST_MEMBERS:
                found[ending] = content
        try:
            row = _sample(key, found)
        except DataError as error:
            yield key, str(error)
            continue
        if row:
            yield key, row


def _members(path: str) -> Iterator[Member]:
    with open_expanded(path) as stream:
        try:
            # Streamed, so that nothing is sought and a compressed archive is unpacked once.
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    if not member.isreg() or not stem or not ending:
                        continue
                    key = f"{folder}/{stem}" if folder else stem
                    yield key, ending.lower(), _content(archive, member)
        except DataError:
            raise
        except (tarfile.TarError, *FAULTS) as error:
            raise DataError(f"{path}: cannot be read as a tar archive ({quoted(str(error))})") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    if member.size > MOST_BYTES:
        return None
    file = archive.extractfile(member)
    return file.read() if file is not None else b""


def _sample(key: str, members: dict[str, bytes | None]) -> dict[str, Any]:
    """The row that members of one key are; nothing if none of them is known."""
    row: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for ending, content in members.items():
        last = ending.rpartition(".")[2]
        if last not in (*IMAGES, *TEXTS, "json"):
            continue
        if content is None:
            raise DataError(f"{quoted(key)}.{quoted(ending, 20)} is longer than {MOST_BYTES >> 20} MiB")
        if last in IMAGES:
            images[ending] = content
        elif last == "json":
            value = parse_json(content, f"{quoted(key)}.json")
            row = {**(value if isinstance(value, dict) else {"messages": value}), **row}
        else:
            row[CAPTION] = _text(key, content)
    if images:
        row = {name: value for name, value in row.items() if name not in ("image", "images")}
        row["images"] = [{"bytes": one, "path": f"{os.path.basename(key)}.{end}"} for end, one in images.items()]
    return row


def _text(key: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the text of {quoted(key)} is not UTF-8 ({quoted(str(error))})") from None
