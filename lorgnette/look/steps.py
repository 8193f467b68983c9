"""Work in steps: generators that stop after each part of it, so that whoever drives them can do something between."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_Result = TypeVar("_Result")
Steps = Generator[None, None, _Result]
"""Work that yields after each part, and returns its result."""


def finish(steps: Steps[_Result]) -> _Result:
    """Do all parts at once; the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
