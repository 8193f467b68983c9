"""Benchmarks of the built-in corpus, one call each: they stand in for the public ones where nothing can be fetched."""

from __future__ import annotations

from collections.abc import Callable

from lorgnette.data.builtin.questions import questions_for_evaluation
from lorgnette.data.builtin.shipped import shipped_parts
from lorgnette.eval.benchmark import Benchmark, BenchmarkRow, Role, Split
from lorgnette.eval.benchmark_prompts import CAPTION_BASE, CAPTION_PROMPTS, QUESTION_BASE, SHORT_ANSWER, Question
from lorgnette.eval.task import Task
from lorgnette.eval.tasks import coco, docvqa
from lorgnette.eval.tasks.reading import people_answered

NORMALISED = "vqa_accuracy_normalised"
"""Ten equal references are the rule in the corpus, and the official code would compare those as they are."""


def _benchmark(
    name: str,
    about: str,
    read: Callable[[BenchmarkRow], Question],
    metric: str,
    max_tokens: int,
    role: Role | None = None,
) -> Benchmark:
    part, caption = shipped_parts()[name], read is coco.read
    splits = {
        split: Split(part.file(split), count, data=f"builtin:{part.file(split)}")
        for split, count in part.rows.items()
        if count
    }
    return Benchmark(
        name=name,
        about=about,
        data="builtin:",
        splits=splits,
        split="test",
        train="train",
        read=read,
        metric=metric,
        licence="public domain (drawings) and Apache-2.0 (what lorgnette renders)",
        chat=CAPTION_PROMPTS if caption else SHORT_ANSWER,
        base=CAPTION_BASE if caption else QUESTION_BASE,
        max_tokens=max_tokens,
        role=role,
    )


BUILTIN = (
    _benchmark(
        "scene_vqa", "questions about scenes of drawings, with short answers", people_answered, NORMALISED, 16, "vqav2"
    ),
    _benchmark(
        "text_vqa", "questions about text in rendered pictures", people_answered, "textvqa_accuracy", 16, "textvqa"
    ),
    _benchmark(
        "knowledge_vqa",
        "questions about drawings that need outside knowledge",
        people_answered,
        NORMALISED,
        16,
        "okvqa",
    ),
    _benchmark(
        "scene_captions", "a caption for a scene of drawings, compared with several", coco.read, "cider_d", 32, "coco"
    ),
    _benchmark("doc_vqa", "questions about rendered pages, answered in the page's words", docvqa.read, "anls", 32),
)
"""The built-in benchmarks; the role of each is that of the public benchmark in whose place it stands."""


def drawings(questions: int = 1000, seed: int = 0, max_tokens: int = 12) -> Task:
    """Questions about drawings of the corpus's test split: category, colour, count and position, in equal numbers."""
    samples = questions_for_evaluation(questions, seed)
    return Task(name="drawings", samples=samples, licence="public domain", max_tokens=max_tokens)
