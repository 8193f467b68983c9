"""MMMU (Yue et al. 2024): college questions of thirty subjects, with up to seven images each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import MMMU_PROMPTS, OPEN_OR_CHOICE_BASE, Question
from lorgnette.eval.benchmark_rows import answers_of, text_of
from lorgnette.eval.tasks.reading import image_of, letter_at, options_of

DISCIPLINES = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy"
    " Public_Health",
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power"
    " Materials Mechanical_Engineering",
}
OF_SUBJECT = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
_ID = re.compile(r"[a-z]+_(.+)_\d+")


def read(row: Mapping[str, Any]) -> Question:
    """A row: options and open answers are written as Python lists, images stand where the text marks them."""
    options = options_of(row, "options", needed=False)
    answers: tuple[str, ...] = ()
    if row.get("answer") not in (None, "", "?"):
        given = answers_of(row, "answer")
        answers = (letter_at(given[0], options),) if options and given else given
    named = _ID.fullmatch(str(row.get("id", "")))
    subject = named[1] if named else ""
    columns = [f"image_{number}" for number in range(1, 8)]
    images = tuple(image_of(row, column) for column in columns if row.get(column) is not None)
    return Question(
        text_of(row, "question"),
        images,
        answers,
        options=options,
        id=str(row.get("id", "")),
        kind=f"{OF_SUBJECT[subject]}/{subject}" if subject in OF_SUBJECT else subject,
        marked=True,
    )


MMMU = Benchmark(
    name="mmmu",
    about="college questions of thirty subjects, multiple choice and open, with up to seven images",
    data="lmms-lab/MMMU",
    splits={
        "dev": Split("data/dev-*", 150),
        "validation": Split("data/validation-*", 900),
        "test": Split("data/test-*", 10_500, answers=False),
    },
    split="validation",
    train="dev",
    read=read,
    metric="mmmu_accuracy",
    metrics={"lmms-eval": "mmmu_accuracy_lmms_eval", "vlmevalkit": "mmmu_accuracy_vlmevalkit"},
    licence="Apache-2.0",
    chat=MMMU_PROMPTS,
    base=OPEN_OR_CHOICE_BASE,
)
