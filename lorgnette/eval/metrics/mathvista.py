"""MathVista (Lu et al. 2024): the answer is extracted from free text by rules, then compared as its type says.

The published evaluation lets a language model extract. These rules need none; `eval/judge.py` asks one about the
answers in which they find nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from string import ascii_uppercase

from lorgnette.eval.metrics.choice import choose
from lorgnette.eval.metrics.edit import edit_distance
from lorgnette.eval.metrics.metric import Reference

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_LIST = re.compile(r"\[[^\[\]]*\]")
_KEYWORD = re.compile(r"(?:answer|result|value|total|therefore|thus|so|is|equals?|=)\b|=", re.IGNORECASE)
LONGEST = 2
"""An answer up to this many times as long as the longest choice is matched to the nearest one, as published."""


def mathvista_accuracy(answer: str, truth: Reference) -> float:
    """1 if what is extracted equals a reference, else 0.

    Numbers are compared after rounding to the places that the question asks for, lists item by item.
    """
    found = extract(answer, truth)
    return float(found is not None and any(_equal(found, reference, truth.form) for reference in truth.answers))


def extract(answer: str, truth: Reference) -> str | None:
    """The final answer in a text: the letter of a choice, a number, or a list as it is written; None without one."""
    if truth.options:
        return choose(answer, truth.options) or _nearest(answer, truth.options)
    if truth.form == "list":
        lists = _LIST.findall(answer)
        return lists[-1] if lists else None
    if truth.form == "integer" or truth.form.startswith("float"):
        return _number_in(answer)
    return answer.strip() or None


def _nearest(answer: str, options: Sequence[str]) -> str | None:
    """The choice at the smallest edit distance, the first of equals, for an answer that is about as long."""
    answer = answer.strip()
    if not answer or len(answer) > LONGEST * max(map(len, options)):
        return None
    distances = [edit_distance(answer, option) for option in options]
    return ascii_uppercase[distances.index(min(distances))]


def _number_in(answer: str) -> str | None:
    """In the last line where a number stands behind a keyword, the first behind the last such; else the last of all."""
    last = None
    for line in reversed(answer.split("\n")):
        numbers = list(_NUMBER.finditer(line))
        if not numbers:
            continue
        last = last or numbers[-1]
        ends = [keyword.end() for keyword in _KEYWORD.finditer(line, 0, numbers[-1].start())]
        if ends:
            return _plain(next(number for number in numbers if number.start() >= ends[-1]))
    return _plain(last) if last else None


def _plain(number: re.Match[str]) -> str:
    return number[0].replace(",", "")


def _equal(found: str, reference: str, form: str) -> bool:
    reference = reference.strip()
    if form == "list":
        wanted_items = _items(reference)
        return wanted_items is not None and _items(found) == wanted_items
    given, wanted = _value(found), _value(reference)
    if given is None or wanted is None or not form:
        return found == reference
    places = int(form.partition(":")[2] or 2) if form.startswith("float") else 0
    if form == "integer":
        return int(given) == int(wanted)
    return round(given, places) == round(wanted, places)


def _value(text: str) -> float | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _items(text: str) -> list[object] | None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list) else None
