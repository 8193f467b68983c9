"""Benchmarks in the roles of TextVQA (words in a scene) and DocVQA (questions on a page)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered.charts import chart
from corpus.rendered.forms import form
from corpus.rendered.letters import letter, note
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question, Sheet
from corpus.rendered.receipts import receipt
from corpus.rendered.resumes import resume
from corpus.rendered.rows import Row, opened, picture, rows
from corpus.rendered.signs import KINDS
from corpus.rendered.tables import table

PEOPLE = 10
"""Answers to a question, as the public files have them."""
READ, WORKED_OUT = 80, 20
"""Per cent of questions about a page that ask for what is written, and for what follows from it."""
DOCUMENTS: tuple[Callable[[Lot], Sheet], ...] = (
    letter,
    form,
    receipt,
    table,
    lambda lot: table(lot, prose=True),
    resume,
    chart,
    note,
)


def make_text_vqa(split: str, count: int, seed: int) -> Iterator[Row]:
    """A sign or something else with words, and a question that those words answer."""
    return _numbered(rows("text_vqa", split, count, seed, _of_scene), f"text-vqa-{split}")


def make_doc_vqa(split: str, count: int, seed: int) -> Iterator[Row]:
    """A page, and a question on it."""
    return _numbered(rows("doc_vqa", split, count, seed, _of_page), f"doc-vqa-{split}")


def _of_scene(lot: Lot) -> Row:
    while not (sheet := lot.one(KINDS)(lot)).questions:
        pass
    return _row(lot, sheet, lot.one(sheet.questions))


def _of_page(lot: Lot) -> Row:
    sheet = lot.one(DOCUMENTS)(lot)
    harder = [question for question in sheet.questions if question.steps]
    wanted = harder if harder and lot.chance(WORKED_OUT) else [one for one in sheet.questions if not one.steps]
    forms = sorted({question.form for question in wanted})
    chosen = lot.one(forms)
    return _row(lot, sheet, lot.one([question for question in wanted if question.form == chosen]))


def _row(lot: Lot, sheet: Sheet, question: Question) -> Row:
    return {
        "image": {"bytes": picture(lot, sheet.paper), "path": None},
        "question": question.text,
        "answers": answers(lot, question),
        "question_type": f"{sheet.layout}: {question.form}",
    }


def answers(lot: Lot, question: Question) -> list[str]:
    """Ten people's answers: mostly the answer itself, sometimes as short or as long as others would put it."""
    also = [lot.one(question.also) for _ in range(lot.between(1, 3))] if question.also else []
    lower = [question.answer.lower()] * lot.between(0, 2) if question.answer in ("Yes", "No") else []
    return [opened(question.answer)] * (PEOPLE - len(also) - len(lower)) + lower + also


def _numbered(made: Iterator[Row], name: str) -> Iterator[Row]:
    for index, row in enumerate(made):
        yield {"question_id": index, "image_id": f"{name}-{index:06d}", **row}
