"""Relaxed accuracy of ChartQA: a number may be off by 5 %, anything else must match."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)


def relaxed_accuracy(answer: str, references: Iterable[str], tolerance: float = 0.05) -> float:
    """1 if the answer matches a reference (Masry et al. 2022, §5.1), else 0.

    A percentage is its hundredth. The tolerance is a share of the reference's magnitude, so negative references work;
    a reference of 0 wants 0.
    """
    return float(any(_matches(answer.strip(), reference.strip(), tolerance) for reference in references))


def _matches(answer: str, reference: str, tolerance: float) -> bool:
    given, wanted = _number(answer), _number(reference)
    if given is None or wanted is None:
        return answer.lower() == reference.lower()
    return abs(given - wanted) <= tolerance * abs(wanted)


def _number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)
