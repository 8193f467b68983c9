"""ChartQA (Masry et al. 2022): questions about charts; a number may be five per cent off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import QUESTION_BASE, SHORT_ANSWER, Question
from lorgnette.eval.benchmark_rows import answers_of, text_of
from lorgnette.eval.tasks.reading import image_of

_KINDS = {"0": "human", "1": "machine", "human_test": "human", "augmented_test": "machine"}


def read(row: Mapping[str, Any]) -> Question:
    """A row of HuggingFaceM4's files (`query`, `label`) or of lmms-lab's (`question`, `answer`)."""
    kind = str(row.get("human_or_machine", row.get("type", "")))
    answers = answers_of(row, "label", "answer")
    return Question(text_of(row, "query", "question"), (image_of(row),), answers, kind=_KINDS.get(kind, kind))


CHARTQA = Benchmark(
    name="chartqa",
    about="questions about charts, written by people and made by machine",
    data="HuggingFaceM4/ChartQA",
    splits={
        "train": Split("data/train-*", 28_299),
        "val": Split("data/val-*", 1_920),
        "test": Split("data/test-*", 2_500),
    },
    split="test",
    train="train",
    read=read,
    metric="relaxed_accuracy",
    licence="GPL-3.0",
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
)
