"""AI2D (Kembhavi et al. 2016): multiple choice about diagrams of school science."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import CHOICE, CHOICE_BASE, Question
from lorgnette.eval.benchmark_rows import text_of
from lorgnette.eval.tasks.reading import image_of, letter_numbered, options_of


def read(row: Mapping[str, Any]) -> Question:
    """A row of lmms-lab's files: `answer` is the number of an option."""
    options = options_of(row, "options")
    answer = letter_numbered(row.get("answer"), options)
    return Question(text_of(row, "question"), (image_of(row),), (answer,), options=options)


AI2D = Benchmark(
    name="ai2d",
    about="multiple choice about diagrams of school science",
    data="lmms-lab/ai2d",
    splits={"train": Split("data/train-*", public=False), "test": Split("data/test-*", 3_088)},
    split="test",
    train="train",
    read=read,
    metric="choice_accuracy",
    licence="CC BY-SA",
    chat=CHOICE,
    base=CHOICE_BASE,
)
