"""Questions about drawings of the built-in corpus's test split: category, colour, count and position."""

from __future__ import annotations

from lorgnette.data.builtin.questions import questions_for_evaluation
from lorgnette.eval.task import Task


def drawings(questions: int = 1000, max_tokens: int = 12) -> Task:
    """questions: how many, the kinds in equal numbers. Public domain."""
    samples = questions_for_evaluation(questions)
    return Task(name="drawings", samples=samples, licence="public domain", max_tokens=max_tokens)
