"""MathVista (Lu et al. 2024): mathematics in figures, with a choice, a number or a list for an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.eval.benchmark import Benchmark, Split, Variant
from lorgnette.eval.rows import text_of, text_written
from lorgnette.eval.tasks.reading import image_of, kind_named, letters_of_text, options_of
from lorgnette.eval.tasks.wordings import CHOICE_BASE
from lorgnette.eval.wording import Question, Wording
from lorgnette.untrusted import quoted

NOTES = {
    "integer": "Answer the question using a single integer number.",
    "float:1": "Answer the question using a single floating-point number with one decimal place.",
    "float:2": "Answer the question using a single floating-point number with two decimal places.",
    "list": "Answer the question using a Python list.",
}
"""lmms-eval's sentence for each kind of answer."""
MOST_PLACES = 15
"""Decimal places that a float has."""
LETTER_NOTE = "Answer with the option's letter from the given choices directly."


def as_taught(question: Question) -> Question:
    """The benchmark's own wording, brought to The Cauldron's: no `Hint: `, and `A. ` for `(A) `."""
    query = re.sub(r"\(([A-H])\) ", r"\1. ", question.query).replace("Hint: ", "")
    return replace(question, query=query)


WORDINGS: dict[Variant, Wording] = {
    "paper": Wording(
        "{query}", choices="{query}\nAnswer with the letter.", letter="Answer: {answer}", change=as_taught
    ),
    "lmms-eval": Wording("{question}\n{note}", choices="{question}\n{options}\n{note}"),
    "vlmevalkit": Wording("{query}"),
}


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
        note=LETTER_NOTE if options else NOTES.get(form, ""),
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
    chat=WORDINGS,
    base=Wording("Question: {question} Answer:", choices=CHOICE_BASE.ask, instruction=CHOICE_BASE.instruction),
    max_tokens=64,
)
