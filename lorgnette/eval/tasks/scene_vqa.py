"""Questions about scenes of built-in drawings: in VQAv2's place where nothing can be fetched."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark
from lorgnette.eval.tasks.builtin import LICENCE, built_in_splits
from lorgnette.eval.tasks.reading import people_answered
from lorgnette.eval.tasks.wordings import QUESTION_BASE, SHORT_ANSWER

SCENE_VQA = Benchmark(
    name="scene_vqa",
    about="questions about scenes of drawings, with short answers",
    data="builtin:",
    splits=built_in_splits("scene_vqa"),
    split="test",
    train="train",
    read=people_answered,
    metric="vqa_accuracy_normalised",  # ten equal references are the rule here, and the official code reads those raw
    licence=LICENCE,
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    max_tokens=16,
    role="vqav2",
)
