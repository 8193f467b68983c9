"""WebDataset archives: members of one key are a sample, read in order and never written anywhere."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

from lorgnette.data.sources.reading.columns import IMAGE_SUFFIXES
from lorgnette.data.sources.reading.compressed import FAULTS, open_expanded
from lorgnette.errors import DataError
from lorgnette.untrusted import parse_json, quoted

TEXT_SUFFIXES = (".txt", ".text", ".caption", ".cap")
_MOST_BYTES = 64 * 2**20
"""Bytes of one member."""
MOST_MEMBERS = 64
"""Members of one sample."""
MOST_SAMPLE = 256 * 2**20
"""Bytes of all members of one sample."""
MOST_HEADER = 2**20
"""Bytes of a long name or of extended headers, which tarfile reads as a whole."""
CAPTION = "txt"
"""The column of a sample's text."""

Member = tuple[str, str, int, Callable[[], bytes]]
"""Key, ending and size of a member, and what reads it."""


class _Header(tarfile.TarInfo):
    """A header of which the extensions are no longer than they may be."""

    EXTENSIONS = (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self.EXTENSIONS and not 0 <= self.size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header has {self.size:,} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def samples_of(path: str) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The samples of an archive by their keys: the fields of a `.json`, `images`, and `txt`; or why there is none.

    Raises: DataError if the archive cannot be read from some place on.
    """
    for key, members in groupby(_members(path), key=lambda one: one[0]):
        try:
            row: dict[str, Any] | str = _sample(key, _contents(members))
        except _Unusable as error:
            row = str(error)
        if row:
            yield key, row


class _Unusable(DataError):
    """A fault of one sample, and not of the archive."""


def _members(path: str) -> Iterator[Member]:
    """Regular members of known endings; their names lead nowhere, as nothing is written."""
    with open_expanded(path) as stream:
        try:
            # Streamed, so that nothing is sought and a compressed archive is unpacked once.
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep the headers of millions
                    name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    folder, _, name = name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    last = ending.lower().rpartition(".")[2]
                    if not member.isreg() or not stem or f".{last}" not in (*IMAGE_SUFFIXES, *TEXT_SUFFIXES, ".json"):
                        continue
                    key = f"{folder}/{stem}" if folder else stem
                    yield key, ending.lower(), member.size, partial(_content, path, archive, member)
        except DataError:
            raise
        except (tarfile.TarError, *FAULTS) as error:
            raise _damaged(path, error) from None


def _content(path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        return file.read() if file is not None else b""
    except DataError:
        raise
    except (tarfile.TarError, *FAULTS) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: BaseException) -> DataError:
    return DataError(f"{path}: cannot be read as a tar archive ({quoted(str(error))})")


def _contents(members: Iterable[Member]) -> dict[str, bytes]:
    """The members of a sample by their endings. Raises: _Unusable if they are too many or too long, or two are one."""
    found: dict[str, bytes] = {}
    left = MOST_SAMPLE
    for key, ending, size, content in members:
        if size > _MOST_BYTES:
            raise _Unusable(f"{quoted(key)}.{quoted(ending, 20)} is longer than {_MOST_BYTES >> 20} MiB")
        if ending in found:
            raise _Unusable(f"two members are called {quoted(key)}.{quoted(ending, 20)}")
        left -= size
        if left < 0 or len(found) == MOST_MEMBERS:
            raise _Unusable(f"{quoted(key)} has more than {MOST_MEMBERS} members or {MOST_SAMPLE >> 20} MiB")
        found[ending] = content()
    return found


def _sample(key: str, members: dict[str, bytes]) -> dict[str, Any]:
    """The row that members of one key are. Raises: _Unusable."""
    row: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for ending, content in members.items():
        last = ending.rpartition(".")[2]
        if f".{last}" in IMAGE_SUFFIXES:
            images[ending] = content
        elif last == "json":
            value = _json(key, content)
            row = {**(value if isinstance(value, dict) else {"messages": value}), **row}
        else:
            row[CAPTION] = _text(key, content)
    if images:
        row = {name: value for name, value in row.items() if name not in ("image", "images")}
        row["images"] = [{"bytes": one, "path": f"{os.path.basename(key)}.{end}"} for end, one in images.items()]
    return row


def _json(key: str, content: bytes) -> Any:
    try:
        return parse_json(content, f"{quoted(key)}.json")
    except DataError as error:
        raise _Unusable(str(error)) from None


def _text(key: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable(f"the text of {quoted(key)} is not UTF-8 ({quoted(str(error))})") from None
