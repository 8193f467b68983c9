"""DocVQA (Mathew et al. 2021): questions about scanned pages; the answer stands on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import QUESTION_BASE, SHORT_ANSWER, Question
from lorgnette.eval.benchmark_rows import answers_of, text_of
from lorgnette.eval.tasks.reading import image_of, kind_named, one_of


def read(row: Mapping[str, Any]) -> Question:
    """A row of lmms-lab's or HuggingFaceM4's files. Its kinds may be several; they are counted as one."""
    answers, name = answers_of(row, "answers"), str(row.get("questionId", row.get("question_id", "")))
    kinds = answers_of(row, "question_types") if "question_types" in row else ()
    return Question(
        text_of(row, "question"),
        (image_of(row),),
        answers,
        shown=one_of(answers, name),
        id=name,
        kind=", ".join(sorted(map(kind_named, kinds))),
    )


DOCVQA = Benchmark(
    name="docvqa",
    about="questions about scanned pages, answered in the page's words",
    data="lmms-lab/DocVQA",
    splits={
        "train": Split("data/train-*", 39_463, data="HuggingFaceM4/DocumentVQA"),
        "validation": Split("DocVQA/validation-*", 5_349),
        "test": Split("DocVQA/test-*", 5_188, answers=False),
    },
    split="validation",
    train="train",
    read=read,
    metric="anls",
    metrics={"vlmevalkit": "anls_normalised"},
    licence="of the industry documents library that the pages are from; annotations for research",
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    max_tokens=32,
)
