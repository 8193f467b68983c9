"""A source as `lorgnette data prepare` goes through it: converted where it must be, then read row by row."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydantic

from lorgnette.data.config import PreparedConfig
from lorgnette.data.prepare.convert import _table as as_table
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.shards import Shards, list_shards
from lorgnette.data.sources.table import KINDS, converter


@dataclass
class Sifted:
    records: list[Record] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Reason -> rows refused."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> parts left out of rows that are kept."""
    details: list[str] = field(default_factory=list)
    converted: bool = False

    @property
    def rows(self) -> int:
        return len(self.records) + self.refused.total()


def config(kind: str, path: Path | str, **settings: Any) -> PreparedConfig:
    return pydantic.TypeAdapter(PreparedConfig).validate_python({"kind": kind, "path": str(path), **settings})


def sift(settings: PreparedConfig, folder: Path) -> Sifted:
    """Every row of a source; what is converted goes through a parquet file in `folder`."""
    kind, sifted = KINDS[settings.kind], Sifted()
    convert = converter(settings)
    paths = () if convert is not None else list_shards(settings.path)
    if convert is not None:
        sifted.converted = True
        rows = []
        for row in convert(settings):
            if isinstance(row, RejectedRow):
                (sifted.left_out if row.parts else sifted.refused)[row.reason] += row.parts or 1
                sifted.details.append(f"{row.file}: {row.place}: {row.reason}: {row.detail}")
            else:
                rows.append(row)
        paths = (str(folder / "converted.parquet"),)
        entries: list[RejectedRow] = []
        pq.write_table(as_table(rows, kind.schema(settings), entries, settings.path), paths[0])
        for entry in entries:
            sifted.refused[entry.reason] += 1
            sifted.details.append(f"{entry.file}: {entry.place}: {entry.reason}: {entry.detail}")
    shards = Shards(paths, kind.columns(settings))
    for shard in range(len(paths)):
        for group in range(len(shards.groups(shard))):
            for number, row in enumerate(shards.rows(shard, group)):
                try:
                    sifted.records.append(kind.read(row, settings, f"row {number}"))
                except Refused as refused:
                    sifted.refused[refused.reason] += 1
                    sifted.details.append(str(refused))
    return sifted
