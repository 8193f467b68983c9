"""Questions about built-in drawings that need outside knowledge: in OK-VQA's place."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark
from lorgnette.eval.tasks.builtin import LICENCE, built_in_splits
from lorgnette.eval.tasks.reading import people_answered
from lorgnette.eval.tasks.wordings import QUESTION_BASE, SHORT_ANSWER

KNOWLEDGE_VQA = Benchmark(
    name="knowledge_vqa",
    about="questions about drawings that need knowledge from outside of them",
    data="builtin:",
    splits=built_in_splits("knowledge_vqa"),
    split="test",
    train="train",
    read=people_answered,
    metric="vqa_accuracy_normalised",  # ten equal references are the rule here, and the official code reads those raw
    licence=LICENCE,
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    max_tokens=16,
    role="okvqa",
)
