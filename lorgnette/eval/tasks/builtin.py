"""What the benchmarks of the built-in corpus have in common: the files of its parts, and a licence."""

from __future__ import annotations

from lorgnette.data.builtin.shipped import shipped_parts
from lorgnette.eval.benchmark import Split

LICENCE = "public domain (drawings) and Apache-2.0 (what lorgnette renders)"


def built_in_splits(name: str) -> dict[str, Split]:
    """The splits of a part of the corpus that have rows."""
    part = shipped_parts()[name]
    return {
        split: Split(part.file(split), count, data=f"builtin:{part.file(split)}")
        for split, count in part.rows.items()
        if count
    }
