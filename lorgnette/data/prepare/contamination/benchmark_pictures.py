"""The pictures of benchmarks: what training must not have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.boundary import boundary_of_benchmark, drawn
from lorgnette.data.sources.reading.columns import IMAGE_SUFFIXES
from lorgnette.data.sources.reading.shards import FOLDER, Shards, list_files, read_bytes
from lorgnette.data.sources.reading.unread import is_named, looks_like_image
from lorgnette.data.sources.reading.values import fetched, read_image
from lorgnette.errors import DataError
from lorgnette.inputs.image_io import MAX_FILE

Pictures = Callable[[str], Iterable[tuple[str, bytes]]]
"""From the name of a benchmark to its pictures: how messages call each, and the bytes of its file; none (`b""`) for one
that cannot be had."""


def files_of_benchmark(name: str) -> tuple[str, ...]:
    """The files of a benchmark given by path, glob or URL, or as `builtin:...`. Raises: DataError if there are none."""
    return list_files(name, (".parquet", *IMAGE_SUFFIXES))


def pictures_of(name: str) -> Iterator[tuple[str, bytes]]:
    """The pictures of a benchmark: those in parquet files, in any column, and those that are files themselves.

    Paths and links in rows are read and fetched within the benchmark's own boundary.
    Raises: DataError if there are none.
    """
    found = False
    for path in files_of_benchmark(name):
        for picture in _of_table(path, name) if path.lower().endswith(".parquet") else [(path, _content(path))]:
            found = True
            yield picture
    if not found:
        raise DataError(f"benchmark {name}: holds no pictures to compare with")


def _content(path: str) -> bytes:
    try:
        return read_bytes(path, MAX_FILE)
    except DataError:
        return b""


def _of_table(path: str, name: str) -> Iterator[tuple[str, bytes]]:
    shards, line = Shards((path,)), boundary_of_benchmark(name if not name.startswith("builtin:") else path)
    for group in range(len(shards.groups(0))):
        for number, row in enumerate(shards.rows(0, group)):
            for column, value in row.items():
                label = f"{path}, group {group}, row {number}, {column}"
                with drawn(line):
                    found = [] if column == FOLDER else list(_pictures(value, row, is_named(column)))
                yield from ((label, one) for one in found)


def _pictures(value: Any, row: Mapping[str, Any], named: bool) -> Iterator[bytes]:
    """Pictures in a value: bytes, a dict with `bytes` or the name of a file, a name, or lists of these."""
    if isinstance(value, bytes) and value:
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _pictures(one, row, named)
    elif isinstance(value, Mapping) and value.get("bytes"):
        yield from _pictures(value["bytes"], row, named)
    elif looks_like_image(value, named):
        try:
            yield from _pictures(fetched(read_image(value, row, "the image"), "the image").source, row, named)
        except Refused:
            yield b""
