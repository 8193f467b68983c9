"""Cache layout of a prepared source, its dependencies and their invalidation.

<source>/.lorgnette/<kind>-<digest>/     digest of the source's settings, the tokenizer and the template
    chunks/<shard>-<first group>.parquet what was learned of row groups, each named by its shard's path, size and time
    converted-<digest>/                  shards made of other files
    index-<digest>/                      of lists and benchmarks: index.parquet, rejected.jsonl, prepared.json, ...
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette import plugins
from lorgnette.data.builtin.shipped import shipped_digest
from lorgnette.data.config import PreparedConfig, SourcePlugin
from lorgnette.data.sources.reading.boundary import folder_of_source
from lorgnette.data.sources.reading.hub_sets import is_hub_set
from lorgnette.data.sources.reading.shards import is_url, list_files, list_shards, open_url
from lorgnette.errors import DataError
from lorgnette.files import clear_once, locked_file, user_cache
from lorgnette.inputs.processor import Processor

_HIDDEN = ".lorgnette"
"""The folder beside a source; no source reads what begins with a dot."""
FORM = 3
"""Version of the format written here; an index of another version is made again."""
NOT_READING = {"weight", "name", "path", "opt_out", "decontaminate", "held_out", "part", "prepared"}
"""Settings that change nothing in what is learned of a row."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as it was when it was read."""

    name: str
    """Path below the source's folder, so that a source may be moved; of a URL or a built-in file, its name."""
    size: int
    changed: str
    """Time of its last change, as its file system tells it; the SHA-256 of a built-in file."""

    @property
    def key(self) -> str:
        """Names the file and its state."""
        return digest([self.name, self.size, self.changed])


def digest(value: Any) -> str:
    """Twelve hex digits that name a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def stamps(paths: Iterable[str], root: Path | None = None) -> list[Stamp]:
    """root: the folder that names start at. Raises: DataError if a file is gone or cannot be looked at."""
    return [_stamp(path, root) for path in paths]


def _stamp(path: str, root: Path | None) -> Stamp:
    try:
        if is_url(path):
            files, inner = open_url(path)
            about = files.info(inner)
            times = ("mtime", "LastModified", "last_modified", "etag", "ETag", "created")
            changed = next((about[key] for key in times if about.get(key)), "")
            return Stamp(path, int(about.get("size") or 0), str(changed))
        found = os.stat(path)
        if root is None and (shipped := shipped_digest(path, found.st_size)) is not None:
            return Stamp(shipped[0], found.st_size, shipped[1])
        name = os.path.relpath(path, root) if root else os.path.abspath(path)
        return Stamp(name, found.st_size, str(found.st_mtime_ns))
    except DataError:
        raise
    except Exception as error:  # every fsspec implementation raises errors of its own
        raise DataError(f"{path}: cannot be looked at ({error})") from None


def root_of(config: PreparedConfig) -> Path | None:
    """The folder that a source lies in; None for a URL, and for what comes with the package."""
    folder = folder_of_source(config.path)
    return None if folder is None else Path(folder)


def shards_of(config: PreparedConfig) -> tuple[tuple[str, ...], list[Stamp]]:
    """The parquet files of a source that is read in place."""
    paths = list_shards(config.path)
    return paths, stamps(paths, root_of(config))


def files_of(config: PreparedConfig) -> list[Stamp]:
    """Every file of a source, whatever its form."""
    return stamps(list_files(config.path, ("",)), root_of(config))


def reading_digest(config: PreparedConfig, processor: Processor | None) -> str:
    """Digest of everything that a chunk depends on, but the rows; without a processor, that converted rows do."""
    settings = {key: value for key, value in config.plain().items() if key not in NOT_READING}
    root = root_of(config)
    within = config.path if root is None else os.path.relpath(config.path, root)
    if isinstance(config, SourcePlugin):
        settings["plugin"] = plugins.record(("sources", config.kind))
    if processor is None:
        return digest([FORM, settings, within])
    pixels, template = processor.images.max_pixels, processor.template.source
    return digest([FORM, settings, within, processor.tokenizer.fingerprint, template, pixels])


def find_home(config: PreparedConfig, processor: Processor | None) -> Path:
    """The folder of a source prepared before; where it would be prepared if it has not been.

    processor: of the model that is trained; None for rows that are converted only, as those of an evaluation.
    """
    kind = config.kind.replace(":", ".")
    name = f"{kind if processor else f'rows-{kind}'}-{reading_digest(config, processor)}"
    places = _places(config)
    return next((place / name for place in places if (place / name).is_dir()), _first_writable(places) / name)


def _places(config: PreparedConfig) -> list[Path]:
    """Folders that prepared sources of this path may lie in, the best first."""
    root = root_of(config)
    where = digest(config.path if root is None else os.path.abspath(config.path))
    if config.prepared is not None:
        return [Path(config.prepared) / _HIDDEN / where]  # hidden, as it may lie within the source
    beside = [] if root is None or is_hub_set(config.path) else [root / _HIDDEN]
    return [*beside, user_cache() / "prepared" / where]


def _first_writable(places: list[Path]) -> Path:
    for place in places:
        there = place
        while not there.exists() and there != there.parent:
            there = there.parent
        if os.access(there, os.W_OK):
            return place
    return places[-1]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder for one process at a time; a killed one lets go. What it left half written is removed."""
    with locked_file(folder / "lock"):
        for inner in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            clear_once(inner)
        yield
