"""A digest of a checkpoint's files: equal digests, equal answers. A path is for people; what lies there may change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.files import DiskError, user_cache, write_json
from lorgnette.hub.source import find_folder

PATTERNS = ("*.safetensors", "*.json", "*.jinja")
"""Files that may decide an answer: weights, settings, tokenizer, template."""
_BESIDE = frozenset({"parity.json"})
"""Files of these patterns that do not."""
SETTLED = 2.0
"""A file changed less than so many seconds ago is not remembered: it may change again within a tick of its clock."""

Seen = dict[str, list[Any]]
"""By path: what the file system says of a file, and the digest of its content."""


def digest_with_adapter(
    source: str | Path, adapter: str | Path | None, quantize: str | None = None, *, merge: bool = True
) -> str:
    """As `checkpoint_digest`, of a model with an adapter, if there is one, and with rounded weights.

    merge: of `load`; answers of the two differ by rounding.
    """
    digests = [checkpoint_digest(one) for one in (source, adapter) if one is not None]
    digests += [quantize] if quantize is not None else []
    digests += [] if merge else ["kept"]
    return digests[0] if len(digests) == 1 else hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def checkpoint_digest(source: str | Path, cache: Path | None = None) -> str:
    """Sixteen hex digits that name the content of a checkpoint's files: of a folder, of a run, or on the hub.

    Digests of files are remembered by path, size, inode and times of change, so that weights are read once.
    cache: where they are remembered, if not with what the user's computer keeps.
    Raises: CheckpointError if there is no such folder, or a file cannot be read.
    """
    folder = find_folder(source)
    memory = cache or user_cache() / "digests.json"
    seen = _remembered(memory)
    files = sorted({file for pattern in PATTERNS for file in folder.glob(pattern) if file.name not in _BESIDE})
    try:
        found = {str(file.resolve()): _digest(file, seen) for file in files}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error.strerror}: {error.filename})") from None
    _remember(memory, {path: entry for path, entry in found.items() if seen.get(path) != entry})
    parts = [[file.name, digest] for file, (_, digest) in zip(files, found.values(), strict=True)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _digest(file: Path, seen: Seen) -> list[Any]:
    before = _state(file)
    known = seen.get(str(file.resolve()))
    if isinstance(known, list) and known[:1] == [before]:
        return known
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return [before, digest]


def _state(file: Path) -> list[int]:
    """Changes whenever the file does: nobody sets the time of the last change of its inode."""
    stat = os.stat(file)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _remembered(memory: Path) -> Seen:
    try:
        return dict(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remember(memory: Path, found: Seen) -> None:
    """Keep what is certain, and of files that are still there. A computer that lets nothing be kept does without."""
    now = time.time()
    settled = {path: entry for path, entry in found.items() if now - max(entry[0][1], entry[0][2]) / 1e9 > SETTLED}
    if settled:
        try:
            before = {path: entry for path, entry in _remembered(memory).items() if os.path.exists(path)}
            write_json(memory, before | settled)
        except DiskError:
            pass
