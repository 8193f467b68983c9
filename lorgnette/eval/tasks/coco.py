"""COCO captions (Chen et al. 2015): a sentence for a photograph, compared with five people's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import CAPTION_BASE, CAPTION_PROMPTS, Question
from lorgnette.eval.benchmark_rows import answers_of
from lorgnette.eval.tasks.reading import image_of, one_of


def read(row: Mapping[str, Any]) -> Question:
    """A row of lmms-lab's files (`answer`), of Karpathy's splits (`sentences_raw`) or of the built-in ones."""
    captions = answers_of(row, "captions", "answer", "sentences_raw", "sentences")
    named = next((row[name] for name in ("cocoid", "image_id", "question_id") if row.get(name) is not None), "")
    return Question("", (image_of(row),), captions, shown=one_of(captions, str(named)), id=str(named))


COCO = Benchmark(
    name="coco",
    about="a caption for a photograph, compared with those of five people",
    data="lmms-lab/COCO-Caption2017",
    splits={
        "train": Split("data/train-*", 113_287, public=False),
        "val2017": Split("data/val-*", 5_000),
        "karpathy": Split("data/test-*", 5_000, public=False),
    },
    split="val2017",
    train="train",
    read=read,
    metric="cider_d",
    licence="CC BY 4.0",
    chat=CAPTION_PROMPTS,
    base=CAPTION_BASE,
    max_tokens=32,
    role="coco",
)
