"""Rows of a source in any order, without a tokenizer: what an evaluation of any model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorgnette.data.config import PreparedConfig
from lorgnette.data.prepare.convert import convert_source
from lorgnette.data.prepare.folder import find_home, locked
from lorgnette.data.prepare.prepared import files_digest
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.row_files import ORIGIN, origin_of
from lorgnette.data.sources.reading.shards import Shards, list_shards
from lorgnette.data.sources.table import converter, kind_of


@dataclass(frozen=True)
class OpenRows:
    """Rows of a source, and those that its converter refused."""

    config: PreparedConfig
    shards: Shards
    places: Sequence[tuple[int, int, int]]
    """Shard, row group and row of each."""
    refused: tuple[RejectedRow, ...]

    def __len__(self) -> int:
        return len(self.places)

    def record(self, number: int) -> Record:
        """Read a row. Raises: Refused or another DataError, naming it."""
        shard, group, row = self.places[number]
        values = self.shards.read(shard, group, row)
        origin = origin_of(values)
        name = ", ".join(origin) if origin else f"{self.shards.paths[shard]}, group {group}, row {row}"
        try:
            return kind_of(self.config).read(values, self.config, name)
        except Refused as refused:
            raise Refused(refused.reason, ": ".join(filter(None, (name, refused.detail)))) from None


def open_rows(config: PreparedConfig) -> OpenRows:
    """Open the rows of a source; what is no parquet is converted once, and kept where prepared sources are.

    Raises: DataError if the source cannot be read at all; DiskError.
    """
    paths: tuple[str, ...] = ()
    refused: list[RejectedRow] = []
    if convert := converter(config):
        home = find_home(config, None)
        with locked(home):
            made = convert_source(config, convert, home / f"converted-{files_digest(config)}")
        paths = tuple(str(made.folder / name) for name in made.shards)
        refused = [one for one in made.refused() if one.rows]
    shards = Shards(paths or list_shards(config.path), (*kind_of(config).columns(config), ORIGIN))
    places = [
        (shard, group, row)
        for shard in range(len(shards.paths))
        for group, rows in enumerate(shards.groups(shard))
        for row in range(rows)
    ]
    return OpenRows(config, shards, places, tuple(refused))
