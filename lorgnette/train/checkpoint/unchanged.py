"""Comparison of the data of a resumed run with those that it began with.

`data.json` in a run's folder keeps a digest of every source. It names contents: where a source lies, and when its files
were written, does not count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorgnette.data.config import SourceConfig
from lorgnette.data.sources.reading.shards import is_url, list_files
from lorgnette.errors import DataError, SettingsError
from lorgnette.files import write_json
from lorgnette.inputs.processor import Processor
from lorgnette.run import Run
from lorgnette.train.checkpoint.manager import Progress
from lorgnette.train.data import stage_processor
from lorgnette.train.parallel import DistributedContext
from lorgnette.untrusted import quoted, read_json

WHOLE_BYTES = 256 * 2**20
"""Bytes of a source up to which its files are read whole; of larger ones, both ends of a sample of the files."""
SAMPLED_FILES, END_BYTES = 256, 2**19
FILE = "data.json"


class ChangedDataError(SettingsError):
    """The data of a source have changed since the run began."""

    alike = True


def check_unchanged(
    run: Run, processor: Processor, folder: Path, progress: Progress, world: DistributedContext, *, accept: bool = False
) -> None:
    """Compare the sources of the stages to come with those that the run began with, and keep their digests.

    progress: step that the run resumes at; at the first step nothing is compared. accept: resume with changed data.
    Collective: every rank calls it, and the first one reads. Raises, on every rank: ChangedDataError naming the source,
    DataError if a source cannot be read, or DiskError.
    """
    with world.alike():
        if world.is_main:
            _check(run, processor, folder, progress.stage, compare=progress.total_step > 0 and not accept)


def _check(run: Run, processor: Processor, folder: Path, first: int, *, compare: bool) -> None:
    before: Any = read_json(folder / FILE) if (folder / FILE).is_file() else {}
    before = before if isinstance(before, dict) else {}
    now = {name: digests for name, digests in before.items() if name in [stage.name for stage in run.stages[:first]]}
    for stage in run.stages[first:]:
        shown = stage_processor(processor, run, stage)
        now[stage.name] = [source_digest(config, shown) for config in stage.sources]
        known = before.get(stage.name)
        if not compare or known is None or known == now[stage.name]:
            continue
        pairs = zip(known if isinstance(known, list) else [], now[stage.name], strict=False)
        number = next((number for number, (old, new) in enumerate(pairs) if old != new), 0)
        title = quoted(stage.sources[number].title)
        raise ChangedDataError(
            f"{folder}: stage {stage.name!r} began with other data: {title} has changed since; restore it, train in"
            " another folder, or resume with the data as they are by --changed-data"
        )
    if now != before:
        write_json(folder / FILE, now)


def source_digest(config: SourceConfig, processor: Processor) -> str:
    """Digest of a source's contents, sixteen hex digits. Raises: DataError if it cannot be read."""
    digest = hashlib.sha256()
    from lorgnette.data.prepare import prepare

    prepared = prepare(config, processor)
    for name, array in sorted(prepared.index.arrays.items()):  # lengths, and hashes of images
        digest.update(name.encode())
        digest.update(array.tobytes())
    converted = bool(prepared.facts.get("converted"))
    _add_files(digest, config.path, list_files(config.path, ("",)) if converted else prepared.index.shards)
    return digest.hexdigest()[:16]


def _add_files(digest: Any, path: str, files: Sequence[str]) -> None:
    """Add the names and contents of a source's files to a digest.

    Nothing is added for a URL: reading it again would take too long, and its index is in the digest already.
    """
    if any(map(is_url, files)) or path.startswith("builtin:"):
        return
    root = path if os.path.isdir(path) else ""
    try:
        sizes = [os.stat(file).st_size for file in files]
        whole = sum(sizes) <= WHOLE_BYTES
        chosen = set(range(0, len(files), 1 if whole else -(-len(files) // SAMPLED_FILES)))
        for number, (file, size) in enumerate(zip(files, sizes, strict=True)):
            name = os.path.relpath(file, root) if root else ""
            digest.update(os.fsencode(f"{name}\0{size}\0"))
            if number in chosen:
                _add_content(digest, file, size, whole)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _add_content(digest: Any, file: str, size: int, whole: bool) -> None:
    with open(file, "rb") as content:
        if whole or size <= 2 * END_BYTES:
            while chunk := content.read(2**20):
                digest.update(chunk)
            return
        digest.update(content.read(END_BYTES))
        content.seek(size - END_BYTES)
        digest.update(content.read(END_BYTES))
