"""Parquet files written to reproducible bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.files import new_file

ROW_GROUP = 64
"""Rows of a row group: what a reader decodes to look at one row."""


def write_rows(path: str | Path, rows: Iterable[dict[str, Any]], columns: pa.Schema) -> None:
    """Write rows as parquet with zstd and row groups of `ROW_GROUP`. The bytes depend on the rows and on pyarrow alone.

    A failure leaves no file. Raises: DiskError where nothing can be written.
    """
    waiting = iter(rows)
    with (
        new_file(path) as beside,
        pq.ParquetWriter(
            beside, columns, compression="zstd", compression_level=9, use_dictionary=False, write_statistics=False
        ) as writer,
    ):
        while group := list(itertools.islice(waiting, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=columns), row_group_size=ROW_GROUP)
