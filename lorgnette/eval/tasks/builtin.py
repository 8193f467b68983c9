"""What the benchmarks of the built-in corpus have in common: the files of its parts, and a licence."""

from __future__ import annotations

from lorgnette.data.builtin.corpus import PARTS
from lorgnette.eval.benchmark import Split

LICENCE = "public domain (drawings) and Apache-2.0 (what lorgnette renders)"


def built_in_splits(name: str) -> dict[str, Split]:
    """The splits of a part of the corpus that have rows."""
    counts = {split: count for split, count in PARTS[name].counts.items() if count}
    return {
        split: Split(PARTS[name].file(split), count, data=f"builtin:{PARTS[name].file(split)}")
        for split, count in counts.items()
    }
