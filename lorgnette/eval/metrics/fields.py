"""F1 over the fields of a JSON object, for extraction tasks such as receipts and forms."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

Fields = Counter[tuple[str, str]]

_OPENINGS = 50
"""Brackets in an answer at which an object is looked for; more would make a long bad answer slow."""


def field_counts(answer: str, references: Sequence[str]) -> tuple[int, int]:
    """(twice the fields that agree, fields of answer and reference together): their quotient is F1, also when summed.

    A field is a dotted key with a value; the order of keys and of list items does not matter. An answer is the first
    JSON object or list in the text, so that prose and code fences around it do no harm; without one it has no fields.
    Of several references the best counts.
    """
    given = _fields_in(answer)
    counts = [_agreement(given, _fields_in(reference)) for reference in references]
    return max(counts, key=lambda pair: pair[0] / pair[1], default=(0, max(1, given.total())))


def _agreement(given: Fields, wanted: Fields) -> tuple[int, int]:
    total = given.total() + wanted.total()
    return (2 * (given & wanted).total(), total) if total else (1, 1)


def _fields_in(text: str) -> Fields:
    openings = (place for place, letter in enumerate(text) if letter in "{[")
    for place in islice(openings, _OPENINGS):
        try:
            return Counter(_flatten(json.JSONDecoder().raw_decode(text, place)[0]))
        except (ValueError, RecursionError):
            continue
    return Counter()


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(inner, key)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
        yield key, " ".join(unicodedata.normalize("NFKC", text).casefold().split())
