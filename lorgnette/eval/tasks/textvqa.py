"""TextVQA (Singh et al. 2019): questions about text in photographs, with ten people's answers each."""

from __future__ import annotations

from dataclasses import replace

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.tasks.reading import people_answered
from lorgnette.eval.tasks.wordings import BRIEF, PHRASE, QUESTION_BASE
from lorgnette.eval.wording import Question


def capitalised(question: Question) -> Question:
    """As lmms-eval writes it: the first letter large, all others small, whatever they name."""
    return replace(question, text=question.text.capitalize())


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
    chat={"paper": BRIEF, "lmms-eval": replace(PHRASE, change=capitalised), "vlmevalkit": PHRASE},
    base=QUESTION_BASE,
    role="textvqa",
)
