"""`Chunk`: index of some row groups of a shard, a pure function of rows, settings and processor."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.index import ARRAYS, INDEX_TYPES, Index
from lorgnette.data.rejected import RejectedRow
from lorgnette.errors import DataError
from lorgnette.untrusted import parse_json


@dataclass(frozen=True, eq=False)
class Chunk:
    """Index and rejected rows of a few row groups."""

    index: Index
    """Of the rows that were kept; all of one shard."""
    refused: tuple[RejectedRow, ...]
    rows: int
    """Rows read: those kept plus those refused."""
    url_W: np.ndarray
    """Hashes of the web addresses that the kept rows name (uint64)."""
    owner_W: np.ndarray
    """The record that names each (int32)."""

    def dumps(self) -> bytes:
        """As the bytes of a parquet file."""
        table = self.index.table()
        refused = json.dumps([list(asdict(one).values()) for one in self.refused], ensure_ascii=False)
        # A lone surrogate, as file names have, is written as JSON's own escape of it.
        escaped = refused.encode("utf-8", "backslashreplace")
        facts = {**table.schema.metadata, b"rows": str(self.rows).encode(), b"refused": escaped}
        for name in ("url_W", "owner_W"):
            table = table.append_column(name, pa.array([getattr(self, name)]))
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(facts), sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def load(cls, path: Path) -> Chunk:
        """Read a file of what `dumps` gave. Raises: DataError naming it."""
        try:
            with open(path, "rb") as file:
                table = pq.read_table(file)
            facts = table.schema.metadata or {}
            refused = tuple(RejectedRow(*values) for values in parse_json(facts[b"refused"], str(path)))
            words = (table.column(name)[0].values.to_numpy(zero_copy_only=False) for name in ("url_W", "owner_W"))
            return cls(Index.from_table(table), refused, int(facts[b"rows"]), *words)
        except (OSError, pa.ArrowException, LookupError, AttributeError, TypeError, ValueError, DataError) as error:
            raise DataError(f"{path}: is damaged ({error}); remove it and prepare again") from None


@dataclass
class ChunkWriter:
    """Collects the rows of a chunk in order."""

    refused: list[RejectedRow] = field(default_factory=list)
    rows: int = 0
    values: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in (*ARRAYS, "url_W", "owner_W")})

    def reject(self, row: RejectedRow) -> None:
        self.refused.append(row)
        self.rows += row.rows

    def keep(self, **values: int | Sequence[int]) -> None:
        """One record: a number for each array over records, and numbers for those over units and images."""
        self.values["owner_W"] += [len(self.values["shard_E"])] * len(values["url_W"])  # type: ignore[arg-type]
        for name, value in values.items():
            self.values[name] += [value] if isinstance(value, int) else value
        self.rows += 1

    def mark(self) -> tuple[int, int, dict[str, int]]:
        """Return a mark: `forget` undoes all that follows it."""
        return len(self.refused), self.rows, {name: len(values) for name, values in self.values.items()}

    def forget(self, mark: tuple[int, int, dict[str, int]]) -> None:
        refused, self.rows, lengths = mark
        del self.refused[refused:]
        for name, length in lengths.items():
            del self.values[name][length:]

    def chunk(self) -> Chunk:
        arrays = {name: np.array(values, dtype=INDEX_TYPES.get(name, np.int32)) for name, values in self.values.items()}
        words = arrays.pop("url_W"), arrays.pop("owner_W")
        return Chunk(Index(("",), **arrays), tuple(self.refused), self.rows, *words)
