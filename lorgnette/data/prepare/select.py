"""From what was read to what is used: without opt-outs and pictures of benchmarks, and of one part of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lorgnette.data.config import PreparedConfig
from lorgnette.data.index import Index
from lorgnette.data.prepare.chunk import Chunk
from lorgnette.data.prepare.contamination.benchmark_pictures import Pictures
from lorgnette.data.prepare.contamination.contamination_page import write_report
from lorgnette.data.prepare.contamination.matches import as_report, find_matches, hash_benchmark
from lorgnette.data.prepare.hold_out import is_held_out, read_keys
from lorgnette.data.prepare.opt_out import opted_out
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.shards import Shards
from lorgnette.data.sources.reading.unread import FILES
from lorgnette.data.sources.reading.unread import REASON as UNREAD
from lorgnette.data.sources.table import kind_of


@dataclass(frozen=True, eq=False)
class Scanned:
    """All that was read of a source, joined."""

    index: Index
    refused: tuple[RejectedRow, ...]
    rows: int
    url_W: np.ndarray
    owner_W: np.ndarray


def join(shards: Sequence[str], chunks: Sequence[tuple[int, Chunk]], refused: Sequence[RejectedRow]) -> Scanned:
    """Chunks in the order of the source, each with the number of its shard; and what else was refused."""
    parts, words, owners, entries, records = [], [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [*refused], 0
    rows = sum(one.rows for one in refused)
    for shard, chunk in chunks:
        parts.append(replace(chunk.index, shard_E=np.full(len(chunk.index), shard, np.int32)))
        words.append(chunk.url_W)
        owners.append(chunk.owner_W.astype(np.int64) + records)
        records += len(chunk.index)
        entries += chunk.refused
        rows += chunk.rows
    index = Index.joined(parts, tuple(shards))
    return Scanned(index, tuple(entries), rows, np.concatenate(words), np.concatenate(owners))


def select(
    scanned: Scanned, config: PreparedConfig, folder: Path, pictures: Pictures
) -> tuple[Index, list[RejectedRow], int]:
    """The records that are left, every refused row, and how many records are of the other part (`held_out`).

    Writes the report on benchmarks, if there are any.
    """
    index, entries, kept_E = scanned.index, [*scanned.refused], np.ones(len(scanned.index), bool)
    for record, where in sorted(opted_out(index, scanned.url_W, scanned.owner_W, config.opt_out).items()):
        entries.append(_entry(index, record, "opted out", where))
        kept_E[record] = False
    if config.decontaminate:
        compared = index.only(kept_E)
        reader = _Reader(config, compared)
        benchmarks = [hash_benchmark(name, pictures) for name in config.decontaminate]
        matches = find_matches(compared, benchmarks, reader.image, pictures)
        write_report(folder, as_report(benchmarks, matches, compared), config.title, reader.image, pictures)
        rows = np.flatnonzero(kept_E)
        for match in matches:
            where = f"image {match.image} {match.match} as {match.picture} of {match.benchmark}"
            entries.append(_entry(compared, match.record, "in a benchmark", where))
            kept_E[rows[match.record]] = False
    allowed = int(kept_E.sum())
    if config.held_out is not None:
        held_E = is_held_out(index, read_keys(config.held_out))
        kept_E &= held_E if config.part == "held_out" else ~held_E
    return index.only(kept_E), entries, allowed - int(kept_E.sum())


def _entry(index: Index, record: int, reason: str, detail: str) -> RejectedRow:
    place = f"group {index.group_E[record]}, row {index.row_E[record]}"
    return RejectedRow(index.shards[index.shard_E[record]], place, reason, detail)


class _Reader:
    """Reads single pictures of records again."""

    def __init__(self, config: PreparedConfig, index: Index) -> None:
        self.config, self.index, self.kind = config, index, kind_of(config)
        self.shards = Shards(index.shards, self.kind.columns(config))

    def image(self, record: int, number: int) -> object:
        index = self.index
        shard, group, row = (int(array[record]) for array in (index.shard_E, index.group_E, index.row_E))
        found = self.kind.read(self.shards.read(shard, group, row), self.config, index.name(record))
        return found.images[number][1].source


def reasons(entries: Sequence[RejectedRow]) -> dict[str, int]:
    """Rows refused by reason, the most frequent first."""
    counts: Counter[str] = Counter()
    for one in entries:
        counts[one.reason] += one.rows
    return dict(counts.most_common())


def notes(entries: Sequence[RejectedRow]) -> dict[str, int]:
    """Lines beside those of rejected rows, by reason: about parts, files, and rows that are kept."""
    counts = Counter(one.reason for one in entries if one.rows == 0 and one.reason not in (UNREAD, FILES))
    return dict(counts.most_common())


def unread(entries: Sequence[RejectedRow]) -> list[str]:
    """Sentences about columns of images, and files, that are not read."""
    return list(dict.fromkeys(one.detail for one in entries if one.reason in (UNREAD, FILES)))
