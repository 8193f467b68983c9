"""Files, and columns that hold images, that the kind of a source does not read: said, so that nobody misses them."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lorgnette.data.config import PreparedConfig, RowsConfig
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.reading.columns import IMAGE_SUFFIXES, as_list, is_absent
from lorgnette.data.sources.reading.row_files import ORIGIN, Found, is_parquet, open_arrow, row_files, rows_of
from lorgnette.data.sources.reading.shards import FOLDER, Shards
from lorgnette.errors import DataError
from lorgnette.untrusted import quoted

_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "pixel", "frame")
"""Parts of names that columns of images have."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
"""First bytes of image files."""
SAMPLE = 16
"""Rows of a parquet or Arrow file whose values are looked at."""
MOST_FILES = 8
"""Parquet files of a source whose columns are looked at, where it is read in place."""
REASON = "column not read"
FILES = "files not read"
"""The reason of a line about files of rows that others beside them leave unread."""


def looks_like_image(value: Any, named: bool) -> bool:
    """Return whether a value is an image: a struct of bytes and path, bytes, a path or URL, or a list of these.

    named: whether its column is called as columns of images are; without, a text alone is none.
    """
    if isinstance(value, Mapping) and {"bytes", "path"} <= value.keys():
        return not is_absent(value)
    if isinstance(value, bytes):
        return value.startswith(MAGIC)
    if isinstance(value, str):
        start = value[:2000].strip().casefold()
        return named and (start.startswith("data:image") or start.partition("?")[0].endswith(IMAGE_SUFFIXES))
    return any(looks_like_image(one, named) for one in (as_list(value) or [])[:4])


def is_named(column: str) -> bool:
    return any(name in column.casefold() for name in _NAMES)


def unread_columns(path: str, read: Collection[str]) -> list[str]:
    """The columns of a parquet or Arrow file that hold images and are none of those that are read."""
    try:
        return [name for name in _first_images(path, read) if name not in (*read, FOLDER, ORIGIN)]
    except DataError:
        return []  # a damaged file; whoever reads it says so


def _first_images(path: str, read: Collection[str]) -> Iterator[str]:
    """The columns whose first values look like images."""
    if is_parquet(path):
        shards = Shards((path,))
        schema = shards.schema(0)
        wanted = [field.name for field in schema if field.name not in read and _may_hold(field)]
        for name in wanted if shards.groups(0) else ():
            yield from _named(next(Shards((path,), (name,)).batches(0, 0, SAMPLE), None), (name,))
        return
    with open_arrow(path) as batches:
        batch = next(batches, None)
        wanted = [field.name for field in batch.schema if _may_hold(field)] if batch is not None else []
        yield from _named(batch, wanted)


def _may_hold(field: pa.Field) -> bool:
    """Return whether a column is worth reading: of its name, or of structs with the fields of an image, or of bytes."""
    text = str(field.type)
    return is_named(field.name) or "bytes:" in text or "binary" in text


def _named(batch: pa.RecordBatch | None, names: Iterable[str]) -> Iterator[str]:
    if batch is None:
        return
    for name in names:
        try:
            values = batch.column(name).slice(0, SAMPLE).to_pylist()
        except (ValueError, KeyError, pa.ArrowException):
            continue
        if any(looks_like_image(value, is_named(name)) for value in values):
            yield name


class Watch:
    """Goes through the rows of a source's files, and counts by column the images that are not read."""

    def __init__(self, config: RowsConfig, read: Collection[str]) -> None:
        self.config, self.read = config, read
        self.columns = Counter[str]()
        """Column -> rows, or files of a form that names its columns once, that hold images in it."""

    def rows(self, paths: Iterable[str]) -> Iterator[tuple[str, str, RowOrRejected]]:
        """Each row of the files with its file and its place there."""
        for path in paths:
            for place, row in self.file(path):
                yield path, place, row

    def file(self, path: str) -> Iterator[Found]:
        """As `rows_of`."""
        typed = path.lower().endswith((".parquet", ".arrow"))
        self.columns.update(unread_columns(path, self.read) if typed else ())
        for place, row in rows_of(path, self.read):
            if not typed and isinstance(row, dict):
                others = ((name, value) for name, value in row.items() if name not in self.read)
                self.columns.update(name for name, value in others if looks_like_image(value, is_named(str(name))))
            yield place, row

    def refusals(self) -> Iterator[RejectedRow]:
        """A row for each column."""
        for column, count in self.columns.most_common(8):
            yield RejectedRow(self.config.path, "", REASON, _said(column, count, self.config.kind), 0, 1)  # type: ignore[attr-defined]


def _said(column: str, count: int, kind: str) -> str:
    many = "1 row or file" if count == 1 else f"{count:,} rows or files"
    return f"{quoted(column, 60)!r} holds images in {many}, which kind {kind} does not look at: rename the column"


def unread_in(paths: Sequence[str], read: Collection[str], kind: str) -> list[str]:
    """Sentences about the columns of parquet files that hold images and are not read; files of a source are alike."""
    columns = Counter(column for path in paths[:MOST_FILES] for column in unread_columns(path, read))
    return [_said(column, count, kind) for column, count in columns.most_common(8)]


def passed_over(config: PreparedConfig) -> str:
    """A sentence about files of rows that this kind finds in its folder and does not read; empty if there are none.

    Kind `chat` reads them all.
    """
    try:
        if config.kind == "pairs":
            others: list[str] = importlib.import_module("lorgnette.data.sources.caption_files").not_read(config)
        elif config.kind in ("instruct", "interleaved"):
            found = row_files(config.path)
            others = [path for path in found if not is_parquet(path)] if any(map(is_parquet, found)) else []
        else:
            return ""
    except DataError:
        return ""
    if not others:
        return ""
    which = "1 file is" if len(others) == 1 else f"{len(others):,} files are"
    return f"{which} passed over for those beside, {quoted(others[0])} first; give the path of a file itself to read it"
