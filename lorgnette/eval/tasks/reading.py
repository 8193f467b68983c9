"""Helpers that the readers of several benchmarks share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.values import read_image, read_list
from lorgnette.eval.benchmark_prompts import Question
from lorgnette.eval.benchmark_rows import answers_of, list_written, text_of, text_written
from lorgnette.sample import Image
from lorgnette.untrusted import quoted


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


def options_of(row: Mapping[str, Any], column: str, needed: bool = True) -> tuple[str, ...]:
    """The options in a column: a list, or one written as text. Raises: Refused."""
    if isinstance(row.get(column), str):
        return tuple(map(str, list_written(row[column] or "[]", column)))
    options = read_list(row, column, needed)
    if any(option is None for option in options):
        raise Refused("no options", f"an option in {column!r} is null")
    return tuple(map(text_written, options))


def letter_at(answer: Any, options: Sequence[str]) -> str:
    """The letter of an option given by letter or by its own text. Raises: Refused."""
    text = str(answer).strip()
    letters = ascii_uppercase[: len(options)]
    if len(text) == 1 and text in letters:
        return text
    return letters_of_text(answer, options)[0]


def letters_of_text(answer: Any, options: Sequence[str]) -> tuple[str, ...]:
    """The letters of the options whose text is the answer; failing that, the answer if it is itself a letter.

    Raises: Refused if it is neither.
    """
    text = text_written(answer).strip()
    found = tuple(letter for letter, option in zip(ascii_uppercase, options, strict=False) if option.strip() == text)
    if not found and len(text) == 1 and text in ascii_uppercase[: len(options)]:
        return (text,)
    if not found:
        raise Refused("no answer", f"the answer {quoted(text)!r} is none of the {len(options)} options")
    return found


def letter_numbered(number: Any, options: Sequence[str]) -> str:
    """The letter of an option given by its number, from 0; a letter or an option's text will do. Raises: Refused."""
    text = text_written(number).strip()
    letters = ascii_uppercase[: len(options)]
    if text.isascii() and text.isdecimal() and len(text) < 3 and int(text) < len(letters):
        return letters[int(text)]
    return letter_at(text, options)


def kind_named(kind: Any) -> str:
    """A kind of question. Public ones such as `yes/no` are one kind: a slash would make it a part of `yes`."""
    return "" if kind is None else str(kind).replace("/", " or ")


def people_answered(row: Mapping[str, Any]) -> Question:
    """A row of VQAv2, OKVQA, TextVQA or the built-in ones: a question with ten people's short answers."""
    answers = answers_of(row, "answers")
    return Question(
        text_of(row, "question"),
        (image_of(row),),
        answers,
        shown=text_written(row.get("multiple_choice_answer") or "") or majority(answers),
        id=str(row.get("question_id", "")),
        kind=kind_named(row.get("answer_type") or row.get("question_type")),
    )
