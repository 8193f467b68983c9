"""From sheets to the rows of the corpus' tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from corpus.rendered.lot import Lot
from corpus.rendered.noise import coloured, scanned
from corpus.rendered.paper import Paper, Question, Sheet

Row = dict[str, Any]
Said = tuple[str, str]
"""A question of the user and the assistant's answer."""

BRIEF = (
    "Answer briefly.",
    "Give a short answer.",
    "Reply in a few words.",
    "Answer with a word or a short phrase.",
    "Be brief.",
    "Only the answer, please.",
    "Keep it short.",
    "A short answer will do.",
)
"""One of these follows a question whose answer is short, as in The Cauldron."""
IN_STEPS = ("Show your steps.", "Explain how you find it.", "Write out the steps.", "Work it out step by step.")


def rows(name: str, split: str, count: int, seed: int, make: Callable[[Lot], Row]) -> Iterator[Row]:
    """`count` rows of a part. Row n depends on (name, split, seed, n) alone; its `origin` is what was drawn for it."""
    for index in range(count):
        lot = Lot(name, split, index, seed)
        row = make(lot)
        yield {**row, "origin": lot.origin}


def instruct(image: bytes | None, said: Sequence[Said], source: str) -> Row:
    """A row as The Cauldron has them; without an image it is in text only."""
    texts = [{"user": user, "assistant": assistant, "source": source} for user, assistant in said]
    return {"images": [] if image is None else [{"bytes": image, "path": None}], "texts": texts}


def about_sheet(lot: Lot, sheet: Sheet, source: str, most: int = 4, *, steps: int = 30) -> Row:
    """A row of two to `most` questions about a sheet. steps: per cent of rows that surely have one to be worked out."""
    harder = [question for question in sheet.questions if question.steps] if lot.chance(steps) else []
    asked = choose(lot, harder, 1)
    asked += choose(
        lot, [question for question in sheet.questions if question not in asked], lot.between(2, most) - len(asked)
    )
    return instruct(picture(lot, sheet.paper), [said(lot, question) for question in asked], source)


def picture(lot: Lot, paper: Paper) -> bytes:
    """The image file of a sheet: a grey one looks scanned, a coloured one is as it was drawn."""
    return scanned(lot, paper) if paper.image.mode == "L" else coloured(paper.image)


def choose(lot: Lot, questions: Sequence[Question], count: int) -> list[Question]:
    """So many of the questions, fewer where there are not as many; none is another wording of one before."""
    chosen: dict[tuple[str, tuple[str, ...]], Question] = {}
    for question in lot.some(questions, len(questions)):
        if len(chosen) < count:
            chosen.setdefault((question.form, question.about), question)
    return list(chosen.values())


def said(lot: Lot, question: Question) -> Said:
    """A question as it is put, and its answer: with its steps if it needs any, else short."""
    if question.steps:
        return f"{question.text} {lot.one(IN_STEPS)}", f"{question.steps} The answer is {closed(question.answer)}"
    if question.form == "says":
        return question.text, question.answer
    return f"{question.text}\n{lot.one(BRIEF)}", closed(opened(question.answer))


def opened(answer: str) -> str:
    """An answer with a capital letter, unless it is an address of electronic mail."""
    return answer if "@" in answer else answer[:1].upper() + answer[1:]


def closed(answer: str) -> str:
    """An answer with a full stop, if it has no end of its own."""
    return answer if answer.endswith((".", "!", "?")) else f"{answer}."
