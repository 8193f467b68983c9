"""Parquet files written to reproducible bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.files import check_own, new_file

ROW_GROUP = 64
"""Rows of a row group: what a reader decodes to look at one row."""


def write_rows(
    path: str | Path, rows: Iterable[dict[str, Any]], columns: pa.Schema, row_group: int = ROW_GROUP
) -> None:
    """Write rows as parquet with zstd. The bytes depend on the rows and on pyarrow alone.

    row_group: rows of a row group; in larger ones than `ROW_GROUP`, values that repeat are written once.
    A failure leaves no file. Raises: DiskError where nothing can be written, or a file is there with other columns.
    """
    check_own(path, partial(has_columns, columns=columns))
    waiting = iter(rows)
    with (
        new_file(path) as beside,
        pq.ParquetWriter(
            beside,
            columns,
            compression="zstd",
            compression_level=9,
            use_dictionary=row_group > ROW_GROUP,
            write_statistics=False,
        ) as writer,
    ):
        while group := list(itertools.islice(waiting, row_group)):
            writer.write_table(pa.Table.from_pylist(group, schema=columns), row_group_size=row_group)


def has_columns(content: bytes, columns: pa.Schema) -> bool:
    """Return whether a file is parquet of just these columns."""
    try:
        return bool(pq.read_schema(pa.BufferReader(content)).remove_metadata().equals(columns.remove_metadata()))
    except (pa.ArrowException, OSError):
        return False
