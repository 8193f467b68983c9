"""The pictures of benchmarks: what training must not have seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lorgnette.data.sources.shards import FOLDER, Shards, list_files, read_bytes
from lorgnette.errors import DataError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

Pictures = Callable[[str], Iterable[tuple[str, bytes]]]
"""From the name of a benchmark to its pictures: how messages call each, and the bytes of its file."""


def files_of_benchmark(name: str) -> tuple[str, ...]:
    """The files of a benchmark given by path, glob or URL, or as `builtin:...`. Raises: DataError if there are none."""
    return list_files(name, (".parquet", *IMAGES))


def pictures_of(name: str) -> Iterator[tuple[str, bytes]]:
    """The pictures of a benchmark: those in parquet files, in any column, and those that are files themselves.

    Raises: DataError if there are none.
    """
    found = False
    for path in files_of_benchmark(name):
        pictures = _of_table(path) if path.lower().endswith(".parquet") else [(path, read_bytes(path))]
        for picture in pictures:
            found = True
            yield picture
    if not found:
        raise DataError(f"benchmark {name}: holds no pictures to compare with")


def _of_table(path: str) -> Iterator[tuple[str, bytes]]:
    shards = Shards((path,))
    for group in range(len(shards.groups(0))):
        for number, row in enumerate(shards.rows(0, group)):
            for column, value in row.items():
                if column != FOLDER:
                    yield from ((f"{path}, group {group}, row {number}, {column}", one) for one in _pictures(value))


def _pictures(value: Any) -> Iterator[bytes]:
    """Pictures in a value: bytes, a dict with `bytes`, or lists of these."""
    if isinstance(value, bytes) and value:
        yield value
    elif isinstance(value, Mapping):
        yield from _pictures(value.get("bytes"))
    elif isinstance(value, list):
        for one in value:
            yield from _pictures(one)
