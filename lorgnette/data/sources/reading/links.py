"""Links to images in parquet rows: found without reading anything else."""

from __future__ import annotations

from collections.abc import Collection

from lorgnette.data.sources.reading.shards import Shards, list_shards
from lorgnette.errors import DataError

_NAMES = frozenset({"url", "path", "image", "image_url"})
"""Names of fields that locate an image within a part of a message."""


def holds_links(path: str, columns: Collection[str]) -> bool:
    """Return whether an image of the shards is an http(s) link: such a source is converted, to fetch each once.

    columns: those that hold images, or messages with images in them.
    """
    shards = Shards(list_shards(path))

    def found(shard: int) -> bool:
        try:
            return shards.holds(shard, wanted, "http")
        except DataError:
            return False  # a damaged file; whoever reads it says so

    def wanted(leaf: str) -> bool:
        column = next((one for one in columns if leaf == one or leaf.startswith(f"{one}.")), None)
        return column is not None and (column not in ("messages", "conversations") or leaf.rpartition(".")[2] in _NAMES)

    return any(found(shard) for shard in range(len(shards.paths)))
