"""The table of kinds: how each source of files is read, and what is converted first. A new kind is a row here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lorgnette.data.config import InstructConfig, PreparedConfig, SourcePlugin
from lorgnette.data.record import Record
from lorgnette.data.rejected import RowOrRejected
from lorgnette.data.sources.reading import message_forms, schemas
from lorgnette.data.sources.reading.boundary import converting_within, reading_within
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS

Row = Mapping[str, Any]
Read = Callable[[Row, Any, str], Record]
"""`read(row, config, name)`: a pure function of one parquet row. Raises Refused with a reason."""
Convert = Callable[[Any], Iterator[RowOrRejected]]
"""`convert(config)`: the rows that are written as parquet before they are read, in the order of the files."""


@dataclass(frozen=True)
class Kind:
    """Reader of one kind of source."""

    read: Read
    columns: Callable[[Any], tuple[str, ...]]
    """The columns that `read` looks at, by the settings of the source. A file need not have all of them."""
    convert: Convert
    """For what is no parquet that `read` takes as it is."""
    must_convert: Callable[[Any], bool]
    """Return whether a source must be converted. Raises: DataError if its path holds no file of the kind."""
    schema: Callable[[Any], pa.Schema]
    """Types of the rows that `convert` gives, by the settings of the source."""

    def __post_init__(self) -> None:
        """Bind the paths that rows may name to the settings of their source, for every kind alike."""
        object.__setattr__(self, "read", reading_within(self.read))
        object.__setattr__(self, "convert", converting_within(self.convert))


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of a sibling module, imported when it is called: PDF and HTML packages only load where needed."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(f"lorgnette.data.sources.{module}"), name)(*arguments)

    return call


def _fixed(*names: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda config: names


def _typed(schema: pa.Schema) -> Callable[[Any], pa.Schema]:
    return lambda config: schema


def _always(config: Any) -> bool:
    return True


def _pair_columns(config: Any) -> tuple[str, ...]:
    return (config.image_column, *IMAGE_COLUMNS, config.alt_column, config.synthetic_column)


KINDS: dict[str, Kind] = {
    "interleaved": Kind(
        _late("interleaved", "read"),
        _fixed("images", "texts"),
        _late("interleaved", "convert"),
        _late("interleaved", "must_convert"),
        _typed(schemas.INTERLEAVED),
    ),
    "webpages": Kind(
        _late("webpages", "read"),
        _fixed("images", "texts", "alts"),
        _late("webpages", "convert"),
        _always,
        _typed(schemas.WEBPAGES),
    ),
    "pairs": Kind(
        _late("pairs", "read"),
        _pair_columns,
        _late("caption_files", "convert"),
        _late("caption_files", "must_convert"),
        schemas.pairs,
    ),
    "documents": Kind(
        _late("documents", "read"),
        _fixed("image", "text", "name", "page"),
        _late("documents", "convert"),
        _late("documents", "must_convert"),
        _typed(schemas.DOCUMENTS),
    ),
    "instruct": Kind(
        _late("instruct", "read"),
        _fixed(*IMAGE_COLUMNS, "texts"),
        _late("instruct", "convert"),
        _late("instruct", "must_convert"),
        _typed(schemas.INSTRUCT),
    ),
    "scenes": Kind(
        _late("scenes", "read"),
        _fixed(*schemas.SCENES.names),
        _late("scenes", "convert"),
        _late("scenes", "must_convert"),
        _typed(schemas.SCENES),
    ),
    "chat": Kind(
        _late("conversations", "read"),
        _fixed(*IMAGE_COLUMNS, *message_forms.COLUMNS),
        _late("conversations", "convert"),
        _late("conversations", "must_convert"),
        _typed(schemas.CHAT),
    ),
}
"""Kind -> how it is read."""


PLUGIN = Kind(
    read=lambda row, config, name: config.read(row, name),
    columns=lambda config: config.columns(),
    convert=lambda config: config.convert(),
    must_convert=lambda config: config.convert() is not None,
    schema=lambda config: config.row_schema(),
)
"""Sources of other packages: their settings say how they are read."""


def kind_of(config: PreparedConfig) -> Kind:
    """Reader of the rows of one source."""
    return PLUGIN if isinstance(config, SourcePlugin) else KINDS[config.kind]


def converter(config: PreparedConfig) -> Convert | None:
    """Conversion that this source needs before it is read; None where its files are read as they are.

    Rows that stand in parquet are read in place, unless they hold links to images, which are fetched once and stored;
    instructions are too, unless rows are to be merged.
    Raises: DataError if the path holds no file of the kind.
    """
    kind = kind_of(config)
    return kind.convert if kind.must_convert(config) else None


def known_before_scan(config: PreparedConfig) -> bool:
    """Return whether `converter` can tell before the rows are read: only of instructions to be merged it cannot.

    Raises: DataError if the path holds no file of the kind.
    """
    return config.kind != "instruct" or bool(_late("instruct", "must_fetch")(config))


def most_units(config: PreparedConfig) -> int | None:
    """Units that a piece of a record may hold at most, by the source's settings; None for no limit but length."""
    return config.most_turns if isinstance(config, InstructConfig) else None
