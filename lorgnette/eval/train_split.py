"""A benchmark's training split as a source that a stage trains on: the fine-tuning probe of Table 7, for one.

lorgnette eval training docvqa data/docvqa
lorgnette train probe/docvqa model.from=... stages.0.sources.0.path=data/docvqa
lorgnette eval --model runs/docvqa --tasks docvqa
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.parquet import write_rows
from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.schemas import INSTRUCT
from lorgnette.data.sources.reading.values import stored
from lorgnette.errors import SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.task import prompt_of
from lorgnette.eval.tasks import benchmark_named, name_and_split
from lorgnette.sample import Sample, Text


@dataclass(frozen=True)
class Written:
    """Counts of rows written, and of rows left out by reason."""

    rows: int
    refused: Mapping[str, int]


def write_training(task: str, folder: str | Path, asking: Asking) -> Written:
    """Write a split (`docvqa`, or `docvqa:validation`) as `train.parquet`, in the columns of The Cauldron.

    Rows that cannot be read, or whose answer is not known, are counted and left out.
    Raises: SettingsError for a benchmark without a training split; DataError; DiskError.
    """
    name, split = name_and_split(task)
    benchmark = benchmark_named(name)
    split = split or benchmark.train or ""
    if not split:
        raise SettingsError(f"{name} has no training split; name another one, as {name}:{benchmark.split}")
    samples = benchmark.samples(asking, split, "chat")
    refused, counts = Counter[str](), Counter[str]()

    def rows() -> Iterator[dict[str, Any]]:
        for index in range(len(samples)):
            try:
                row = _row(samples[index], f"{name}/{split}")
            except Refused as reason:
                refused[reason.reason] += 1
                continue
            counts["rows"] += 1
            yield row

    write_rows(Path(folder) / "train.parquet", rows(), INSTRUCT)
    return Written(counts["rows"], dict(refused))


def _row(sample: Sample, source: str) -> dict[str, Any]:
    """Images come first, as The Cauldron has them, wherever they stand in the question."""
    answer = sample.segments[-1]
    if not isinstance(answer, Text) or not answer.text.strip():
        raise Refused("no answer")
    images = [stored(image, f"image {number}") for number, image in enumerate(sample.images)]
    texts = [{"user": prompt_of(sample).text, "assistant": answer.text, "source": source}]
    return {"images": images, "texts": texts}
