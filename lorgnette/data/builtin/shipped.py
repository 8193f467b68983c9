"""The parts of the built-in corpus that the package carries, and the paths of their files.

They are parquet at `corpus/<split>/<kind>/<part>.parquet` beside this module, so that a source of a kind reads one
folder. `corpus/manifest.json` describes them. The generator that writes them is the package `corpus` of a checkout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError

SHIPPED_CORPUS = Path(__file__).with_name("corpus")
"""Folder of the parquet files."""
MANIFEST = SHIPPED_CORPUS / "manifest.json"
"""Parts by name, and rows, bytes and SHA-256 of every file, with the versions that it was made with."""
_PREFIX = "builtin:"
"""First characters of a path that names a place in the built-in corpus."""


@dataclass(frozen=True)
class ShippedPart:
    """One table of the corpus."""

    name: str
    kind: str
    """The kind of source that reads it, or `benchmark`."""
    rows: Mapping[str, int]
    """Rows of each split; 0 where it has none."""
    about: str

    def file(self, split: str) -> str:
        """The file of a split, relative to the folder of the corpus."""
        return f"{split}/{self.kind}/{self.name}.parquet"


@cache
def manifest() -> dict[str, Any]:
    """The content of `MANIFEST`: `parts` and `files` by name, and the versions `made_with`."""
    return json.loads(MANIFEST.read_text(encoding="utf-8"))


@cache
def shipped_parts() -> dict[str, ShippedPart]:
    """Every part of the corpus by name."""
    return {name: ShippedPart(name, **part) for name, part in manifest()["parts"].items()}


def resolve(path: str) -> str:
    """The folder or file of `builtin:train/instruct` or `builtin:test/chat/conversations.parquet`.

    Raises: DataError if the corpus has no such place.
    """
    wanted = path.removeprefix(_PREFIX).strip("/")
    files = manifest()["files"]
    if not any(f"{file}/".startswith(f"{wanted}/" if wanted else "") for file in files):
        there = sorted({file.rpartition("/")[0] for file in files})
        raise DataError(f"{path}: the built-in corpus has no such folder or file; use one of {', '.join(there)}")
    return str(SHIPPED_CORPUS / wanted)


def shipped_digest(path: str, size: int) -> tuple[str, str] | None:
    """Name within the corpus and SHA-256 of a file that the package carries; None for others, and where it was changed.

    Each installation has its own paths and times of these files; this is the same in all that carry the same corpus.
    """
    with suppress(ValueError, KeyError):
        name = Path(path).relative_to(SHIPPED_CORPUS).as_posix()
        about = manifest()["files"][name]
        return (f"{_PREFIX}{name}", about["sha256"]) if about["bytes"] == size else None
    return None
