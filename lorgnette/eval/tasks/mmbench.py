"""MMBench (Liu et al. 2023): multiple choice in circular passes; a question is right if every pass is.

The public files hold each question once for every turn of its options, under index + 1,000,000, + 2,000,000, ... Files
that hold each question once are turned here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.eval.benchmark import Benchmark, Pass, Split
from lorgnette.eval.benchmark_prompts import CHOICE_BASE, MMBENCH_PROMPTS, Question
from lorgnette.eval.benchmark_rows import Rows, text_of
from lorgnette.eval.tasks.reading import image_of, letter_at

TURN = 1_000_000
"""Offset between the index of a question and that of its next pass."""
LETTERS = ascii_uppercase[:8]
"""Columns that may hold options; the public files have A to D."""


def read(row: Mapping[str, Any]) -> Question:
    """A row of lmms-lab's files, or of HuggingFaceM4's, where the picture is base64. Absent options read `nan`."""
    texts = {letter: str(row[letter]) for letter in LETTERS if _is_there(row.get(letter))}
    options = tuple(texts[letter] for letter in sorted(texts))
    if "".join(sorted(texts)) != LETTERS[: len(texts)] or len(options) < 2:
        raise Refused("no options", f"the row has options {', '.join(sorted(texts)) or 'nowhere'}")
    index = text_of(row, "index")
    known = _is_there(row.get("answer"))
    kind, part = (str(row.get(name) or "") for name in ("L2-category", "category"))
    kind = kind or str(row.get("l2-category") or "")
    return Question(
        text_of(row, "question"),
        (image_of(row),),
        (letter_at(row["answer"], options),) if known else (),
        options=options,
        id=index,
        hint=str(row["hint"]) if _is_there(row.get("hint")) else "",
        kind=f"{kind}/{part}" if kind and part else kind or part,
        group=str(_group(index)),
    )


def _is_there(value: Any) -> bool:
    return value is not None and value == value and str(value) not in ("", "nan")


def _group(index: Any) -> str | int:
    text = str(index)
    return int(text) % TURN if text.isdecimal() else text


def passes(rows: Rows) -> Sequence[Pass]:
    """Every row once if some question is there in several passes, else every row in each turn of its options."""
    groups = [_group(index) for index in rows.column("index")]
    if len(set(groups)) < len(groups):
        return [Pass(row, 0, group) for row, group in enumerate(groups)]
    columns = [rows.column(letter) for letter in LETTERS if letter in rows[0]] if groups else []
    counts = [sum(map(_is_there, values)) for values in zip(*columns, strict=True)]
    return [
        Pass(row, turns, group)
        for row, (group, count) in enumerate(zip(groups, counts, strict=True))
        for turns in range(max(1, count))
    ]


MMBENCH = Benchmark(
    name="mmbench",
    about="multiple choice about pictures of many kinds, asked once for each turn of the options",
    data="lmms-lab/MMBench",
    splits={"dev": Split("en/dev-*", 4_329), "test": Split("en/test-*", 6_666, answers=False)},
    split="dev",
    read=read,
    metric="circular_accuracy",
    licence="Apache-2.0",
    chat=MMBENCH_PROMPTS,
    base=CHOICE_BASE,
    passes=passes,
)
