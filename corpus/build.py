"""Remakes the files of the corpus that the package carries, and their manifest.

The versions of Pillow (with its libwebp and zlib) and pyarrow decide on the bytes: they are in the manifest, and those
of constraints.txt give the same ones.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus.parts import PARTS, Part
from corpus.writing import WrittenFile, versions, write_corpus
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.shipped import MANIFEST, SHIPPED_CORPUS, manifest
from lorgnette.files import write_json


def build() -> list[WrittenFile]:
    """Write every part elsewhere first, then replace the files of the package and the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        written = write_corpus(folder, fresh=True)
        for one in written:
            target = SHIPPED_CORPUS / one.file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / one.file, target)
    for file in SHIPPED_CORPUS.rglob("*.parquet"):
        if file.relative_to(SHIPPED_CORPUS).as_posix() not in {one.file for one in written}:
            file.unlink()
    write_json(MANIFEST, manifest_of(written))
    manifest.cache_clear()
    return written


def manifest_of(written: Sequence[WrittenFile]) -> dict[str, Any]:
    """The content of the manifest of a whole corpus."""
    files = {one.file: dataclasses.asdict(one) for one in written}
    for facts in files.values():
        del facts["file"]
    return {"made_with": versions(), "parts": {name: described(part) for name, part in PARTS.items()}, "files": files}


def described(part: Part) -> dict[str, Any]:
    """A part as the manifest describes it to the package."""
    return {"kind": part.kind, "rows": dict(part.counts), "about": part.about}


def check(parts: Sequence[str] = tuple(PARTS), splits: Sequence[str] = SPLITS) -> tuple[int, list[str]]:
    """Make parts again in a temporary folder. Returns how many files, and how they differ from the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        written = {file.file: file for file in write_corpus(folder, 1, parts, splits, fresh=True)}
    chosen = {PARTS[name].file(split) for name in parts for split in splits}
    faults = []
    for name in sorted((manifest()["files"].keys() & chosen) | written.keys()):
        wanted, made = manifest()["files"].get(name), written.get(name)
        if wanted is None or made is None or WrittenFile(name, **wanted) != made:
            faults.append(f"{name}: the manifest says {wanted}, and {made} was made")
    faults += [f"{name}: the manifest describes it differently" for name in parts if not _is_described(name)]
    return len(written), faults


def _is_described(name: str) -> bool:
    return bool(manifest()["parts"].get(name) == described(PARTS[name]))
