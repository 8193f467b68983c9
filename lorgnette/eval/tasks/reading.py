"""What the readers of several benchmarks share."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.values import read_image
from lorgnette.eval.rows import answers_of, text_of
from lorgnette.eval.wording import Question
from lorgnette.sample import Image


def image_of(row: Mapping[str, Any], column: str = "image") -> Image:
    """The picture in a column. Raises: Refused if there is none."""
    return read_image(row.get(column), row, f"{column!r}")


def majority(answers: Sequence[str]) -> str:
    """The answer given most often, the first of equals."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def one_of(texts: Sequence[str], name: str) -> str:
    """One of several texts, drawn by the name of what they belong to."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return texts[number % len(texts)] if texts else ""


def list_written(text: Any, column: str) -> list[Any]:
    """A list, or one written as Python writes it, as MMMU keeps its options. Raises: Refused."""
    if isinstance(text, list):
        return text
    try:
        value = ast.literal_eval(str(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise Refused("wrong type", f"{column!r} is not a list: {str(text)[:60]!r}")
    return value


def letter_at(place: Any, options: Sequence[str]) -> str:
    """The letter of an option given by number (from 0), by letter or by its own text. Raises: Refused."""
    text = str(place).strip()
    letters = ascii_uppercase[: len(options)]
    if text.isdecimal() and int(text) < len(letters):
        return letters[int(text)]
    if text and text in letters:
        return text
    if list(options).count(text) == 1:
        return ascii_uppercase[options.index(text)]
    raise Refused("no answer", f"the answer {text!r} is none of the {len(options)} options")


def kind_named(kind: Any) -> str:
    """A kind of question. Public ones such as `yes/no` are one kind: a slash would make it a part of `yes`."""
    return str(kind or "").replace("/", " or ")


def people_answered(row: Mapping[str, Any]) -> Question:
    """A row of VQAv2, OKVQA, TextVQA or the built-in ones: a question with ten people's short answers."""
    answers = answers_of(row, "answers")
    return Question(
        text_of(row, "question"),
        (image_of(row),),
        answers,
        shown=str(row.get("multiple_choice_answer") or majority(answers)),
        id=str(row.get("question_id", "")),
        kind=kind_named(row.get("answer_type") or row.get("question_type")),
    )
