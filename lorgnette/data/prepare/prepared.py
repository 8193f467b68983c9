"""`Prepared`: a source whose every record is known before it is read, and whose records can be read in any order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lorgnette.data.config import PreparedConfig
from lorgnette.data.index import Index
from lorgnette.data.prepare.folder import Stamp, digest, files_of, find_home, shards_of, stamps
from lorgnette.data.record import Record
from lorgnette.data.rejected import read_rejected, rejected_file
from lorgnette.data.sources.reading.row_files import ORIGIN, origin_of
from lorgnette.data.sources.reading.shards import Shards
from lorgnette.data.sources.table import kind_of
from lorgnette.errors import DataError
from lorgnette.inputs.processor import Processor
from lorgnette.settings import typed
from lorgnette.untrusted import quoted, read_json

FACTS = "prepared.json"
"""Written last: a folder that has it is complete."""
CONVERTED = re.compile(r"\.\./converted-[0-9a-f]{12}/[0-9]{5,}\.parquet")
"""Pattern of an index's name for a shard that was converted from other files."""


@dataclass
class Facts:
    """Contents of prepared.json."""

    rows: int
    kept: int
    refused: int
    reasons: dict[str, int]
    notes: dict[str, int]
    unread: list[str]
    images: int
    tokens: int
    supervised_tokens: int
    converted: bool
    files: str
    lists: str
    shards: list[Stamp]
    apart: int = 0


class NotPrepared(DataError):
    """A source that must be prepared first, or again."""


@dataclass(frozen=True)
class Prepared:
    """A source and its index. Can be pickled: another process opens the files itself."""

    config: PreparedConfig
    index: Index
    folder: Path
    """Folder of index.parquet, rejected.jsonl and prepared.json."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def rejected(self) -> Path:
        """The file of rejected rows; see `read_rejected`."""
        return rejected_file(self.folder)

    def record(self, number: int) -> Record:
        """Read a record. Raises: Refused or another DataError, naming the row, if it is not what was prepared."""
        index, kind = self.index, kind_of(self.config)
        shard, group, row = (int(array[number]) for array in (index.shard_E, index.group_E, index.row_E))
        values = self._shards.read(shard, group, row)
        origin = origin_of(values)
        return kind.read(values, self.config, ", ".join(origin) if origin else index.name(number))

    @cached_property
    def _shards(self) -> Shards:
        return Shards(self.index.shards, (*kind_of(self.config).columns(self.config), ORIGIN))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Rows read, kept and refused, by reason, as prepared.json has them."""
        return read_facts(self.folder)


def open_prepared(config: PreparedConfig, processor: Processor) -> Prepared:
    """Open a source that was prepared with this tokenizer and template.

    Raises: NotPrepared if it was not, or if its files, lists or benchmarks have changed since; DataError if it holds
        nothing that can be trained on.
    """
    folder = find_home(config, processor) / lists_folder(config)
    advice = f"run `lorgnette data prepare --kind {config.kind} {config.path}`, or prepare the recipe"
    facts = read_facts(folder)
    if not facts:
        raise NotPrepared(f"{config.title}: is not prepared for this tokenizer; {advice}")
    if changed := changes(config, facts):
        raise NotPrepared(f"{config.title}: {changed} since it was prepared; {advice}")
    try:
        index = Index.load(folder / "index.parquet")
    except DataError as error:
        raise NotPrepared(f"{config.title}: {error}") from None
    if not len(index):
        raise DataError(f"{config.title}: {_nothing_kept(facts, rejected_file(folder))}")
    paths = [folder / shard for shard in index.shards] if facts["converted"] else shards_of(config)[0]
    foreign = facts["converted"] and not all(CONVERTED.fullmatch(shard) for shard in index.shards)
    if foreign or len(paths) != len(index.shards):
        raise NotPrepared(f"{config.title}: its index names other files; {advice}")
    return Prepared(config, replace(index, shards=tuple(map(str, paths))), folder)


def _nothing_kept(facts: Mapping[str, Any], rejected: Path) -> str:
    """Describe why nothing of a source can be trained on."""
    if facts["apart"] and facts["apart"] + facts["refused"] == facts["rows"]:
        return f"holds no row of the part that is asked for: {facts['apart']:,} of {facts['rows']:,} are of the other"
    found = facts["reasons"] if facts["rows"] else facts["notes"]
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in found.items() if count)
    if facts["rows"]:
        first = next((one for one in read_rejected(rejected) if one.rows), None)
        said = "" if first is None else f"; {first.name}: {first.reason}: {quoted(first.detail)}"
        return f"none of {facts['rows']:,} rows can be trained on ({reasons}){said}; all in {rejected}"
    return f"holds no rows that can be read ({reasons}); see {rejected}" if reasons else "holds no rows"


def lists_folder(config: PreparedConfig) -> str:
    """Folder of an index, below that of what was read: it depends on what is left out."""
    part = [config.held_out, config.part] if config.held_out else []
    return f"index-{digest([config.opt_out, config.decontaminate, *part])}"


def read_facts(folder: Path) -> dict[str, Any]:
    """Read prepared.json; nothing if it is missing or cannot be read."""
    try:
        facts = read_json(folder / FACTS)
        known = vars(typed(Facts, facts, str(folder / FACTS)))
        return {**facts, **known}
    except DataError:
        return {}


def changes(config: PreparedConfig, facts: Mapping[str, Any]) -> str:
    """Describe what has changed since a source was prepared; empty if nothing has."""
    if facts["lists"] != lists_digest(config):
        return "a list of those who opted out or of held-out pictures, or a benchmark, has changed"
    if facts["converted"]:
        return "" if facts["files"] == files_digest(config) else "its files have changed"
    before = {one.name: (one.size, one.changed) for one in facts["shards"]}
    now = {one.name: (one.size, one.changed) for one in shards_of(config)[1]}
    differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if not differing:
        return ""
    if len(differing) == 1:
        word = "was added" if differing[0] not in before else "has changed" if differing[0] in now else "is gone"
        return f"{differing[0]} {word}"
    return f"{len(differing)} of its files have changed, {differing[0]} among them"


def files_digest(config: PreparedConfig) -> str:
    return digest([one.key for one in files_of(config)])


def lists_digest(config: PreparedConfig) -> str:
    """Names the contents of opt-out lists, benchmarks and held-out pictures, by size and time."""
    from lorgnette.data.prepare.contamination.benchmark_pictures import files_of_benchmark

    files = [
        *config.opt_out,
        *([config.held_out] if config.held_out else []),
        *(file for name in config.decontaminate for file in files_of_benchmark(name)),
    ]
    return digest([one.key for one in stamps(files)])
