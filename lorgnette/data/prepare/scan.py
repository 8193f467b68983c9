"""Reads row groups once: every row becomes counts and hashes in a `Chunk`, or a `RejectedRow`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorgnette import plugins
from lorgnette.data.config import PreparedConfig
from lorgnette.data.prepare.chunk import Chunk, ChunkWriter
from lorgnette.data.prepare.counts import TokenCounter
from lorgnette.data.prepare.image_facts import image_facts, short_sha
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.row_files import ORIGIN, origin_of, plain_rows
from lorgnette.data.sources.reading.shards import FOLDER, Shards, folder_of
from lorgnette.data.sources.table import kind_of
from lorgnette.errors import CheckpointError, DataError, ImageError, SettingsError, is_fault
from lorgnette.inputs.access import is_link
from lorgnette.inputs.processor import Processor
from lorgnette.untrusted import parse_json, quoted

ADDRESSES = ("url", "metadata")
"""Columns that name where a row's images are from, read for lists of those who opted out: LAION's, and OBELICS's."""

Filter = Callable[[Record], str | None]


@dataclass(frozen=True, slots=True)
class ScanTask:
    """Row groups of a shard that are read in one go."""

    path: str
    first: int
    rows: tuple[int, ...]
    """Rows of each row group, from the file's footer."""


@dataclass
class Scanner:
    """Reads tasks of one source. Goes to other processes and there makes what it needs."""

    config: PreparedConfig
    processor: Processor
    filters: list[tuple[str, Filter]] = field(init=False)

    def __post_init__(self) -> None:
        """Raises: SettingsError for a filter that cannot be imported."""
        self.filters = [(name, load_filter(name)) for name in self.config.filters]
        self.count = TokenCounter(self.processor)
        self.columns = (*kind_of(self.config).columns(self.config), *ADDRESSES, ORIGIN)

    def __reduce__(self) -> tuple[Any, ...]:
        return Scanner, (self.config, self.processor)

    def __call__(self, task: ScanTask) -> Chunk:
        """Every row of a task. A row group that cannot be read to its end is refused whole: training reads it whole."""
        writer, shards = ChunkWriter(), Shards((task.path,), self.columns)
        for group, rows in enumerate(task.rows, task.first):
            mark = writer.mark()
            try:
                for row, values in enumerate(_rows(shards, group)):
                    self._row(writer, (task.path, group, row), values)
            except DataError as error:
                writer.forget(mark)
                writer.reject(RejectedRow(task.path, f"group {group}", "unreadable row group", str(error), rows))
        return writer.chunk()

    def _row(self, writer: ChunkWriter, place: tuple[str, int, int], row: Mapping[str, Any] | ValueError) -> None:
        """One row, kept or refused. Only what is wrong with the row refuses it; anything else is raised."""
        path, group, number = place
        origin = None if isinstance(row, ValueError) else origin_of(row)
        file, where = origin or (path, f"group {group}, row {number}")
        try:
            if isinstance(row, ValueError):
                raise Refused("unreadable row", str(row))
            record = kind_of(self.config).read(row, self.config, f"{file}, {where}")
            values = self._values(row, record)
        except Refused as refused:
            writer.reject(RejectedRow(file, where, refused.reason, refused.detail))
            return
        except BaseException as error:
            if isinstance(error, Exception) or not is_fault(error):
                raise
            # an extension in Rust has given up on this row, and on no other
            writer.reject(RejectedRow(file, where, "unreadable row", quoted(" ".join(str(error).split()))))
            return
        for reason, detail in record.doubts:
            writer.reject(RejectedRow(file, where, reason, detail, rows=0))
        writer.keep(shard_E=0, group_E=group, row_E=number, **values)

    def _values(self, row: Mapping[str, Any], record: Record) -> dict[str, Any]:
        """Return the index values of a row. Raises: Refused."""
        if not record.units:
            raise Refused("empty", "the row holds nothing to train on")
        self._filter(record)
        images = [(unit, self._image(image.source, number)) for number, (unit, image) in enumerate(record.images)]
        try:
            counts = self.count(record)
        except CheckpointError as error:
            raise Refused("template", str(error)) from None
        except DataError as error:
            raise Refused("unreadable text", str(error)) from None
        return {
            "prefix_tokens_E": counts.prefix,
            "units_E": len(record.units),
            "images_E": len(images),
            "tokens_U": counts.tokens,
            "supervised_U": counts.supervised_tokens,
            "unit_I": [unit for unit, _ in images],
            "width_I": [look.width for _, look in images],
            "height_I": [look.height for _, look in images],
            "sha_I": [look.sha for _, look in images],
            "look_I": [look.look for _, look in images],
            "url_W": sorted({hash_url(url) for url in addresses(row, record)}),
        }

    def _image(self, source: Any, number: int) -> Any:
        if isinstance(source, str) and is_link(source):  # it would be fetched again whenever the row is trained on
            raise Refused("not fetched", f"image {number} is a link in a form that is not looked for: {quoted(source)}")
        try:
            return image_facts(source, f"image {number}", self.processor.images.max_pixels)
        except ImageError as error:
            raise Refused("unreadable image", str(error)) from None

    def _filter(self, record: Record) -> None:
        for name, accept in self.filters:
            try:
                reason = accept(record)
            except Exception as error:  # somebody else's function: whatever it raises is reported with the row
                raise Refused("failed filter", f"{name} raised {type(error).__name__}: {error}") from None
            if reason is not None and not isinstance(reason, str):
                raise Refused("failed filter", f"{name} returned {reason!r:.80}; it should give None or a reason")
            if reason is not None:
                raise Refused(reason or "filtered", f"by {name}")


def load_filter(name: str) -> Filter:
    """A function by its dotted name. Raises: SettingsError."""
    found = plugins.import_named(name, f"filters: {name}")
    if not callable(found):
        raise SettingsError(f"filters: {name} is a {type(found).__name__}; expected a function from a Record")
    return found


def _rows(shards: Shards, group: int) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of a row group, each as plain values or as the reason why it has none."""
    folder = folder_of(shards.paths[0])
    for batch in shards.batches(0, group):
        for row in plain_rows(batch):
            yield row if isinstance(row, ValueError) else {**row, FOLDER: folder}


def hash_url(url: str) -> int:
    """A web address as a number: without its scheme, which sites change, and the host in small letters."""
    host, slash, rest = re.sub(r"(?i)^https?://", "", url.strip()).partition("/")
    bare = f"{host.lower()}{slash}{rest}"
    return short_sha(hashlib.sha256(bare.encode("utf-8", "surrogatepass")).digest())


def addresses(row: Mapping[str, Any], record: Record) -> Iterator[str]:
    """The web addresses that a row names: of images to be fetched, those given beside bytes, and the page's own."""
    sources = [image.source for _, image in record.images]
    found: list[Any] = [*sources, *_links(row)]
    for one in found:
        if isinstance(one, str) and is_link(one.strip()):
            yield one


def _links(row: Mapping[str, Any]) -> Iterator[Any]:
    yield row.get("url")
    images = row.get("images")
    for image in images if isinstance(images, list) else [row.get("image")]:
        if isinstance(image, Mapping):
            yield from (image.get("path"), image.get("url"))
    metadata = row.get("metadata")
    if not isinstance(metadata, str):
        return
    try:
        listed = parse_json(metadata, "metadata")  # OBELICS: {"src": ..., "document_url": ...} for each place
    except DataError:
        return
    for one in listed if isinstance(listed, Iterable) and not isinstance(listed, str | Mapping) else [listed]:
        if isinstance(one, Mapping):
            yield from (one.get("src"), one.get("unformatted_src"), one.get("document_url"))
