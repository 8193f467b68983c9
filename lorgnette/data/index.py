"""`Index`: what is known of every record of a source before it is read. The plan of training is made of this alone.

Arrays are flat. Legend: E records, U units of all records end to end, I images of all records end to end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.errors import DataError
from lorgnette.files import new_file
from lorgnette.untrusted import parse_json


@dataclass(frozen=True, eq=False)
class Index:
    """Index of a source: the place of each record, and its parts' lengths in tokens of text and pixels of images."""

    shards: tuple[str, ...]
    """Paths or URLs of the parquet files, in order."""
    shard_E: np.ndarray
    """Shard number (int32)."""
    group_E: np.ndarray
    """Row group within the shard (int32)."""
    row_E: np.ndarray
    """Row within the row group (int32)."""
    prefix_tokens_E: np.ndarray
    """Tokens of the prefix's text, with what every piece costs: begin, end and roles (int32)."""
    units_E: np.ndarray
    """Number of units (int32)."""
    images_E: np.ndarray
    """Number of images, prefix included (int32)."""
    tokens_U: np.ndarray
    """Tokens of each unit's text; those of image slots depend on the stage and are not in it (int32)."""
    supervised_U: np.ndarray
    """Number of supervised tokens among them (int32)."""
    unit_I: np.ndarray
    """The unit that holds the image, within its record; -1 for the prefix (int32)."""
    width_I: np.ndarray
    """Pixels, upright (int32)."""
    height_I: np.ndarray
    sha_I: np.ndarray
    """First eight bytes of the SHA-256 of the image's bytes (uint64)."""
    look_I: np.ndarray
    """Perceptual hash: images that look the same differ in few bits (uint64)."""

    def __post_init__(self) -> None:
        records = len(self.shard_E)
        if not (len(self.units_E) == len(self.images_E) == len(self.prefix_tokens_E) == records):
            raise DataError("an index has arrays of different lengths")
        if len(self.tokens_U) != self.units_E.sum() or len(self.width_I) != self.images_E.sum():
            raise DataError("an index counts more or fewer units or images than it holds")

    def __len__(self) -> int:
        return len(self.shard_E)

    @property
    def image_starts(self) -> np.ndarray:
        """Offsets of each record's images in the arrays over I, and the end (int64, one more than E)."""
        return starts_of(self.images_E)

    def name(self, record: int) -> str:
        """Return the name of a record in messages."""
        return f"{self.shards[self.shard_E[record]]}, group {self.group_E[record]}, row {self.row_E[record]}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by its name."""
        return {name: getattr(self, name) for name in ARRAYS}

    def record_of_image(self) -> np.ndarray:
        """Record of each image (int64)."""
        return np.repeat(np.arange(len(self)), self.images_E)

    def only(self, kept_E: np.ndarray) -> Index:
        """The records where `kept_E` (bool) is true."""
        kept = {"E": kept_E, "U": np.repeat(kept_E, self.units_E), "I": np.repeat(kept_E, self.images_E)}
        return Index(self.shards, **{name: array[kept[name[-1]]] for name, array in self.arrays.items()})

    @classmethod
    def joined(cls, parts: Sequence[Index], shards: tuple[str, ...]) -> Index:
        """Records of several indexes in order, whose shard numbers all count in `shards`."""
        arrays = {
            name: np.concatenate([np.empty(0, INDEX_TYPES.get(name, np.int32)), *(part.arrays[name] for part in parts)])
            for name in ARRAYS
        }
        return cls(shards, **arrays)

    def table(self) -> pa.Table:
        """As a table of one row, with the shards in its metadata."""
        columns = {name: pa.array([array]) for name, array in self.arrays.items()}
        return pa.table(columns).replace_schema_metadata({"shards": json.dumps(self.shards)})

    @classmethod
    def from_table(cls, table: pa.Table) -> Index:
        """Read what `table` wrote. Raises: KeyError, IndexError, ValueError or pa.ArrowException if it is not."""
        shards = tuple(parse_json((table.schema.metadata or {})[b"shards"], "its shards"))
        made = cls(shards, **{name: table.column(name)[0].values.to_numpy(zero_copy_only=False) for name in ARRAYS})
        made._check()
        return made

    def _check(self) -> None:
        """Raises: ValueError if arrays are not of the types that they should be, or a record's shard is not named."""
        for name, array in self.arrays.items():
            if array.dtype != INDEX_TYPES.get(name, np.int32) or (
                name not in INDEX_TYPES and array.min(initial=0) < LEAST.get(name, 0)
            ):
                raise ValueError(f"{name} holds something else than counts")
        if not all(isinstance(shard, str) for shard in self.shards):
            raise ValueError("its shards are no names")
        if self.shard_E.max(initial=-1) >= len(self.shards):
            raise ValueError("a record is of a shard that is not named")

    def save(self, path: str | Path) -> None:
        """Write as a parquet file, beside and renamed."""
        with new_file(path) as beside, beside.open("wb") as file:
            pq.write_table(self.table(), file, compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Read what `save` wrote. Raises: DataError naming the file if it is not an index."""
        try:
            with open(path, "rb") as file:
                return cls.from_table(pq.read_table(file))
        except (OSError, pa.ArrowException, LookupError, AttributeError, TypeError, ValueError, DataError) as error:
            raise DataError(f"{path}: is not an index ({error}); run `lorgnette data prepare` again") from None


ARRAYS = tuple(field.name for field in fields(Index) if field.name != "shards")
INDEX_TYPES = {"sha_I": np.uint64, "look_I": np.uint64, "url_W": np.uint64}
"""Types of arrays, where they are not int32; those of chunks included."""
LEAST = {"unit_I": -1}
"""Least values of arrays of int32, where that is not 0: an image before all units is of unit -1."""


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Offsets of runs of these lengths laid end to end, and the end (int64, one more)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
