"""`prepare`: makes an index and a list of rejected rows from files, resuming where a killed run stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from lorgnette.data.config import InstructConfig, PreparedConfig
from lorgnette.data.index import Index
from lorgnette.data.prepare.chunk import Chunk
from lorgnette.data.prepare.contamination.benchmark_pictures import Pictures, pictures_of
from lorgnette.data.prepare.convert import Converted, convert_source
from lorgnette.data.prepare.folder import Stamp, find_home, locked, shards_of, stamps
from lorgnette.data.prepare.pool import run
from lorgnette.data.prepare.prepared import (
    FACTS,
    NotPrepared,
    Prepared,
    files_digest,
    lists_digest,
    lists_folder,
    open_prepared,
)
from lorgnette.data.prepare.scan import Scanner, ScanTask
from lorgnette.data.prepare.select import Scanned, join, notes, reasons, select, unread
from lorgnette.data.rejected import REJECTED, RejectedRow, write_rejected
from lorgnette.data.sources.reading.shards import Shards, list_files
from lorgnette.data.sources.reading.unread import FILES, passed_over, unread_in
from lorgnette.data.sources.reading.unread import REASON as UNREAD
from lorgnette.data.sources.table import converter, kind_of, known_before_scan
from lorgnette.errors import DataError
from lorgnette.files import new_file, write_json
from lorgnette.inputs.processor import Processor
from lorgnette.output import advancing

ROWS_OF_TASK = 512
"""Rows that are read in one go, or one row group if that is larger: what a kill may lose for each worker."""


@dataclass(frozen=True)
class Options:
    """Options of preparing; they do not change the result."""

    console: Console | None = None
    """Console that shows progress; None for no progress bar."""
    ray: str | None = None
    """Address of a Ray cluster; None for this machine."""
    workers: int | None = None
    """Processes; None for one for each core."""
    fresh: bool = False
    """Do everything again, as after a change in a filter of your own."""
    pictures: Pictures = pictures_of
    """Function that reads the pictures of a benchmark."""


def prepare(
    config: PreparedConfig,
    processor: Processor,
    *,
    console: Console | None = None,
    ray: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
    pictures: Pictures = pictures_of,
) -> Prepared:
    """Prepare a source; does nothing where that is done already. See `Options` for the arguments.

    Raises: DataError if the source cannot be read at all or holds nothing to train on; SettingsError for a missing
        package or filter; DiskError.
    """
    options = Options(console, ray, workers, fresh, pictures)
    home = find_home(config, processor)
    if not home.is_dir():
        list_files(config.path, ("",))  # a path that leads nowhere leaves no folder behind
    with locked(home):
        if fresh:
            _clear(home)
        try:
            return open_prepared(config, processor)
        except NotPrepared:
            _Job(config, processor, home, options).run()
    return open_prepared(config, processor)


OUR_FOLDERS = re.compile(r"chunks|(converted|index)-[0-9a-f]{12}")
OUR_FILES = re.compile(
    r"[0-9a-f]{12}-[0-9]+\.parquet|[0-9]{5,}\.parquet(\.re(jected|fused)\.jsonl)?|index\.parquet|(rejected|ledger)\.jsonl|state\.json"
    r"|prepared\.json|contamination\.(json|html)|\..*\.tmp",
    re.DOTALL,
)
"""Names that preparing writes below its own folder of a source; they are removed when it starts over."""


def _clear(home: Path) -> None:
    """Remove what preparing wrote, and nothing that somebody else put there."""
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink() and OUR_FOLDERS.fullmatch(path.name):
            _remove_ours(path)


def _remove_ours(folder: Path) -> None:
    """Remove the files that preparing writes to a folder, and the folder if nothing else is in it."""
    with suppress(OSError):
        for path in folder.iterdir():
            if OUR_FILES.fullmatch(path.name) and not path.is_dir():
                path.unlink()
        folder.rmdir()


@dataclass
class _Job:
    config: PreparedConfig
    processor: Processor
    home: Path
    options: Options

    def run(self) -> None:
        config, folder = self.config, self.home / lists_folder(self.config)
        lists, files = lists_digest(config), files_digest(config)
        convert = self._converter(files) if known_before_scan(config) else None
        scanner = Scanner(config, self.processor)
        made = None if convert is None else self._convert(files)
        scanned, shards = self._scan(scanner, made)
        if made is None and isinstance(config, InstructConfig) and config.merge and same_images(scanned.index):
            made = self._convert(files)
            scanned, shards = self._scan(scanner, made)
        index, entries, apart = select(scanned, config, folder, self.options.pictures)
        refused = sum(one.rows for one in entries)
        if len(index) + refused + apart != scanned.rows:
            raise DataError(
                f"{config.title}: {scanned.rows} rows were read, but {len(index)} kept, {refused} refused and {apart}"
                " of the other part"
            )
        names = [f"../{made.folder.name}/{shard}" for shard in made.shards] if made else [one.name for one in shards]
        write_rejected(folder / REJECTED, entries)
        (folder / "ledger.jsonl").unlink(missing_ok=True)  # of an earlier version
        Index(tuple(names), **index.arrays).save(folder / "index.parquet")
        facts = {
            "source": config.plain(),
            "rows": scanned.rows,
            "kept": len(index),
            "refused": refused,
            "apart": apart,
            "reasons": reasons(entries),
            "notes": notes(entries),
            "unread": unread(entries),
            "images": int(index.images_E.sum()),
            "tokens": int(index.prefix_tokens_E.sum() + index.tokens_U.sum()),
            "supervised_tokens": int(index.supervised_U.sum()),
            "converted": made is not None,
            "files": files,
            "lists": lists,
            "shards": [asdict(one) for one in shards],
        }
        write_json(folder / FACTS, facts)

    def _converter(self, files: str) -> Callable[..., Iterator[object]] | None:
        """Return the conversion that a source needs first, if any. Finding out may read much: the answer is cached."""
        kept = self.home / f"convert-{files}.json"
        if kept.is_file():
            return kind_of(self.config).convert if kept.read_bytes().strip() == b"true" else None
        convert = converter(self.config)
        for old in self.home.glob("convert-*.json"):
            old.unlink()
        write_json(kept, convert is not None)
        return convert

    def _convert(self, files: str) -> Converted:
        convert, folder = kind_of(self.config).convert, self.home / f"converted-{files}"
        with advancing(self.options.console, f"{self.config.title}: to parquet", None, "rows") as advance:
            made = convert_source(self.config, convert, folder, advance)
        for old in self.home.glob("converted-*"):
            if old != folder and OUR_FOLDERS.fullmatch(old.name) and old.is_dir():
                _remove_ours(old)
        return made

    def _scan(self, scanner: Scanner, made: Converted | None) -> tuple[Scanned, list[Stamp]]:
        """Read all shards, or what of them was not read before."""
        if made is not None:
            paths: Sequence[str] = [str(made.folder / name) for name in made.shards]
            shards = stamps(paths, made.folder)
        else:
            paths, shards = shards_of(self.config)
        chunks = self.home / "chunks"
        tasks, refused = list[tuple[ScanTask, int, Path]](), list(made.refused() if made else ())
        for number, (path, shard) in enumerate(zip(paths, shards, strict=True)):
            try:
                found = tasks_of(path)
            except DataError as error:
                refused.append(RejectedRow(path, "", "unreadable file", str(error), rows=0))
                continue
            tasks += [(task, number, chunks / f"{shard.key}-{task.first}.parquet") for task in found]
        if made is None:
            sentences = unread_in(paths, scanner.columns, self.config.kind)
            refused += [RejectedRow(self.config.path, "", UNREAD, sentence, rows=0) for sentence in sentences]
        if sentence := passed_over(self.config):
            refused.append(RejectedRow(self.config.path, "", FILES, sentence, rows=0))
        self._run(scanner, tasks)
        kept = {place for *_, place in tasks}
        for old in chunks.glob("*.parquet"):
            if old not in kept and OUR_FILES.fullmatch(old.name):
                old.unlink()
        return join(paths, [(number, Chunk.load(place)) for _, number, place in tasks], refused), shards

    def _run(self, scanner: Scanner, tasks: Sequence[tuple[ScanTask, int, Path]]) -> None:
        places = {(task.path, task.first): place for task, _, place in tasks}
        waiting = [task for task, _, place in tasks if not place.is_file()]
        total = sum(sum(task.rows) for task, *_ in tasks)
        with advancing(self.options.console, f"{self.config.title}: counting", total, "rows") as advance:
            advance(total - sum(sum(task.rows) for task in waiting))
            for task, chunk in run(scanner, waiting, ray=self.options.ray, workers=self.options.workers):
                with new_file(places[task.path, task.first]) as beside:
                    beside.write_bytes(chunk)
                advance(sum(task.rows))


def tasks_of(path: str) -> list[ScanTask]:
    """A shard's row groups in runs of about `ROWS_OF_TASK` rows. Raises: DataError if it is no parquet."""
    tasks, waiting, first = list[ScanTask](), list[int](), 0
    for group, rows in enumerate(Shards((path,)).groups(0)):
        if waiting and sum(waiting) + rows > ROWS_OF_TASK:
            tasks.append(ScanTask(path, first, tuple(waiting)))
            waiting, first = [], group
        waiting.append(rows)
    return [*tasks, ScanTask(path, first, tuple(waiting))] if waiting else tasks


def same_images(index: Index) -> bool:
    """Return whether two records of one shard show the same images in the same order."""
    starts, seen = index.image_starts.tolist(), set[tuple[int, bytes]]()
    sizes, content = index.sha_I.itemsize, np.ascontiguousarray(index.sha_I).tobytes()
    for record, shard in enumerate(index.shard_E.tolist()):
        images = content[starts[record] * sizes : starts[record + 1] * sizes]
        if images and (shard, images) in seen:
            return True
        seen.add((shard, images))
    return False
