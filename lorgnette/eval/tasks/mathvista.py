"""MathVista (Lu et al. 2024): mathematics in figures, with a choice, a number or a list for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import MATHVISTA_NOTES, MATHVISTA_PROMPTS, OPEN_OR_CHOICE_BASE, Question
from lorgnette.eval.benchmark_rows import text_of, text_written
from lorgnette.eval.tasks.reading import image_of, kind_named, letters_of_text, options_of
from lorgnette.untrusted import quoted

MOST_PLACES = 15
"""Decimal places that a float has."""


def read(row: Mapping[str, Any]) -> Question:
    """A row of AI4Math's files. The picture is `decoded_image`; `image` is only its path."""
    options = options_of(row, "choices", needed=False)
    unit, form = row.get("unit"), str(row.get("answer_type") or "")
    if form == "float":
        form = f"float:{_places(row.get('precision'))}"
    answers: tuple[str, ...] = ()
    if row.get("answer") not in (None, ""):
        answers = letters_of_text(row["answer"], options) if options else (text_written(row["answer"]),)
    about = row.get("metadata")
    about = about if isinstance(about, Mapping) else {}
    return Question(
        text_of(row, "question") + (f" (Unit: {unit})" if unit else ""),
        (image_of(row, "decoded_image"),),
        answers,
        options=options,
        id=str(row.get("pid", "")),
        kind=kind_named(about.get("task")),
        query=str(row.get("query") or ""),
        note=MATHVISTA_NOTES.get("letter" if options else form, ""),
        form="" if options else form,
    )


def _places(precision: Any) -> int:
    """Decimal places to which an answer is rounded. Raises: Refused."""
    if precision is None or precision != precision:
        return 2
    try:
        places = int(float(precision)) or 2
    except (ValueError, TypeError, OverflowError):
        places = -1
    if not 0 < places <= MOST_PLACES:
        raise Refused("wrong type", f"'precision' is {quoted(str(precision), 60)}, not a number of decimal places")
    return places


MATHVISTA = Benchmark(
    name="mathvista",
    about="mathematics in figures, charts and puzzles; a choice, a number or a list",
    data="AI4Math/MathVista",
    splits={
        "testmini": Split("data/testmini-*", 1_000),
        "test": Split("data/test-*", 5_141, answers=False),
    },
    split="testmini",
    read=read,
    metric="mathvista_accuracy",
    licence="CC BY-SA 4.0",
    chat=MATHVISTA_PROMPTS,
    base=OPEN_OR_CHOICE_BASE,
    max_tokens=64,
)
