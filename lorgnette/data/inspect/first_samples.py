"""The first samples of a source by itself, before it is prepared: does it hold what one thinks it holds?"""

from __future__ import annotations

from collections.abc import Iterator

from lorgnette.data.config import PreparedConfig, SourceConfig
from lorgnette.data.record import Record
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.row_files import origin_of
from lorgnette.data.sources.reading.shards import Shards, list_shards
from lorgnette.data.sources.table import Row, converter, kind_of
from lorgnette.errors import DataError
from lorgnette.sample import Sample
from lorgnette.settings import Settings, apply_override


class _One(Settings):
    source: SourceConfig


def source_config(kind: str, path: str, overrides: list[str]) -> SourceConfig:
    """The settings of a source by its kind. Raises: SettingsError naming what is unknown."""
    values = {"source": {"kind": kind, "path": path}}
    for override in overrides:
        apply_override(values["source"], override)
    return _One.parse(values, where=f"--kind {kind}").source


def first_samples(config: SourceConfig, most: int) -> Iterator[Sample | str]:
    """The first `most` rows of a source, each as one sample, or as the reason why it is refused.

    Raises: DataError if the source cannot be opened at all.
    """
    read = kind_of(config).read
    for number, (name, row) in enumerate(_rows(config)):
        if number == most:
            return
        if isinstance(row, RejectedRow):
            yield f"{name}: {row.reason}" + (f": {row.detail}" if row.detail else "")
            continue
        try:
            record: Record = read(row, config, name)
            yield Sample(record.piece().segments, {"name": name, **record.meta})
        except DataError as error:
            yield f"{name}: {error}"


def _rows(config: PreparedConfig) -> Iterator[tuple[str, Row | RejectedRow]]:
    """Rows as they are read, with how messages call them; where files must be converted, in the converter's order."""
    if convert := converter(config):
        for number, row in enumerate(convert(config)):
            name = row.name if isinstance(row, RejectedRow) else ", ".join(filter(None, origin_of(row) or ()))
            yield name or f"{config.path}, row {number}", row
        return
    kind = kind_of(config)
    shards = Shards(list_shards(config.path), kind.columns(config))
    for shard, path in enumerate(shards.paths):
        for group in range(len(shards.groups(shard))):
            for row_number, row in enumerate(shards.rows(shard, group)):
                yield f"{path}, group {group}, row {row_number}", row
