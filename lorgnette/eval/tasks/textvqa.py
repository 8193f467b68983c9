"""TextVQA (Singh et al. 2019): questions about text in photographs, with ten people's answers each."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import QUESTION_BASE, TEXTVQA_PROMPTS
from lorgnette.eval.tasks.reading import people_answered

TEXTVQA = Benchmark(
    name="textvqa",
    about="questions about text in photographs, with short answers of ten people",
    data="lmms-lab/textvqa",
    splits={
        "train": Split("data/train-*", 34_602),
        "validation": Split("data/validation-*", 5_000),
        "test": Split("data/test-*", 5_734, answers=False),
    },
    split="validation",
    train="train",
    read=people_answered,
    metric="textvqa_accuracy",
    metrics={"vlmevalkit": "vqa_accuracy_normalised"},
    licence="CC BY 4.0",
    chat=TEXTVQA_PROMPTS,
    base=QUESTION_BASE,
    role="textvqa",
)
