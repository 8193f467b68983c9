"""Files that are no parquet become parquet shards: images as the bytes of their files, resumable by shard."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.config import PreparedConfig
from lorgnette.data.rejected import RejectedRow, RowOrRejected, read_rejected, rejected_file, write_rejected
from lorgnette.data.sources.reading.download import bytes_in
from lorgnette.data.sources.reading.row_files import ORIGIN, origin_of
from lorgnette.data.sources.table import Convert, kind_of
from lorgnette.errors import DataError
from lorgnette.files import new_file, write_json
from lorgnette.settings import typed
from lorgnette.untrusted import read_json

PARQUET_SHARD_BYTES = 256 * 2**20
"""A shard is closed when it holds more than this."""
GROUP_ROWS, GROUP_BYTES = 64, 32 * 2**20
"""A row group is what a reader decodes to look at one row."""

ORIGIN_TYPE = pa.struct([("file", pa.string()), ("place", pa.string())])


@dataclass
class _State:
    """Contents of state.json."""

    items: int
    shards: list[str]
    done: bool


@dataclass
class Converted:
    """Shards made so far."""

    folder: Path
    items: int = 0
    """Rows and refusals of the converter that are written down."""
    shards: list[str] = field(default_factory=list)
    done: bool = False

    def refused(self) -> Iterator[RejectedRow]:
        """Rows that the converter refused, in order."""
        for shard in self.shards:
            yield from read_rejected(rejected_file(self.folder, f"{shard}.rejected.jsonl"))

    def save(self) -> None:
        write_json(self.folder / "state.json", {"items": self.items, "shards": self.shards, "done": self.done})

    @classmethod
    def load(cls, folder: Path) -> Converted:
        """Read the progress of an earlier run; empty if there was none."""
        try:
            state = typed(_State, read_json(folder / "state.json"), str(folder))
        except DataError:
            return cls(folder)
        if state.items < 0 or state.shards != [f"{number:05d}.parquet" for number in range(len(state.shards))]:
            return cls(folder)
        return cls(folder, state.items, state.shards, state.done)


def convert_source(
    config: PreparedConfig, convert: Convert, folder: Path, progress: Callable[[int], None] = lambda rows: None
) -> Converted:
    """Write the shards of a source that lack. A killed run loses the shard that it was writing, and no more.

    To go on, the converter is run again from its start, and what stands in finished shards is passed over.
    progress: called with the number of rows done.
    """
    made, schema = Converted.load(folder), _schema(config)
    if made.done:
        return made
    items = itertools.islice(convert(config), made.items, None)
    progress(made.items)
    while not made.done:
        name = f"{len(made.shards):05d}.parquet"
        taken, refused, made.done = _write_shard(folder / name, schema, items, progress)
        write_rejected(folder / f"{name}.rejected.jsonl", refused)
        made.items += taken
        made.shards.append(name)
        made.save()
    return made


def _schema(config: PreparedConfig) -> pa.Schema:
    return kind_of(config).schema(config).append(pa.field(ORIGIN, ORIGIN_TYPE))


def _write_shard(
    path: Path, schema: pa.Schema, items: Iterator[RowOrRejected], progress: Callable[[int], None]
) -> tuple[int, list[RejectedRow], bool]:
    """Fill one shard. Gives how many items were taken, which of them were refused, and whether they were the last."""
    taken, size, refused = 0, 0, list[RejectedRow]()
    with (
        new_file(path) as beside,
        beside.open("wb") as file,  # pyarrow takes paths as text, which not every name of a folder is
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer,
    ):
        while size < PARQUET_SHARD_BYTES:
            group, count = _take(items, refused)
            taken += count
            progress(count)
            if group:
                table = _table(group, schema, refused, str(path))
                writer.write_table(table, row_group_size=GROUP_ROWS)
                size += table.nbytes
            if count == 0:
                return taken, refused, True
    return taken, refused, False


def _take(items: Iterator[RowOrRejected], refused: list[RejectedRow]) -> tuple[list[dict[str, Any]], int]:
    """Rows of one row group, and how many items were taken for it; none at the end."""
    rows: list[dict[str, Any]] = []
    size = count = 0
    for item in items:
        count += 1
        if isinstance(item, RejectedRow):
            refused.append(item)
        else:
            rows.append({**item, ORIGIN: _written(item.get(ORIGIN))})
            size += bytes_in(item)
        if count >= GROUP_ROWS or size >= GROUP_BYTES:
            break
    return rows, count


def _written(origin: Any) -> Any:
    """The file and place of a row, in which bytes of a name that are no text are escapes."""
    if not isinstance(origin, dict):
        return origin
    return {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in origin.items()}


def _table(rows: list[dict[str, Any]], schema: pa.Schema, refused: list[RejectedRow], path: str) -> pa.Table:
    """Rows as a table; one that does not fit the types is refused, and the others stay."""
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, ValueError, TypeError):
        tables = [schema.empty_table()]
        for row in rows:
            try:
                tables.append(pa.Table.from_pylist([row], schema=schema))
            except (pa.ArrowException, ValueError, TypeError) as error:
                file, place = origin_of(row) or (path, "")
                refused.append(RejectedRow(file, place, "cannot be written", " ".join(str(error).split())))
        return pa.concat_tables(tables)
