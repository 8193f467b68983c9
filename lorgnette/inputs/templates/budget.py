"""Limits on what a chat template may compute: the size of every string and list, steps, and seconds of CPU time.

Templates come with checkpoints of unknown origin. Whatever one does ends in text of a bounded size or in an error.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import jinja2

_SECONDS = 3.0
"""CPU time of one rendering, with a second more for each million characters of the contents."""
MAX_WIDTH = 1000
"""Largest width, indentation or number of columns that a template may ask for."""
MAX_SOURCE = 2**20
"""Characters of a template."""


class Budget:
    """Remaining work and output of one rendering. Every operation of the template is charged here.

    Raises: jinja2.TemplateError from `step`, `room` and `charge` when a limit is passed.
    """

    def __init__(self, characters: int = 0, contents: int = 0) -> None:
        """characters: length of all contents together. contents: their number."""
        self.longest = 16 * characters + 2**20
        self.steps = 200_000 + 10 * characters + 1000 * contents
        self.seconds = _SECONDS + characters / 1e6
        self._deadline = time.thread_time() + self.seconds
        self._unchecked = 0

    def step(self, cost: int = 1) -> None:
        """Charge an operation."""
        self.steps -= cost
        if self.steps < 0:
            raise jinja2.TemplateError("it takes more steps than any conversation needs")
        self._unchecked += cost
        if self._unchecked >= 64:
            self._unchecked = 0
            if time.thread_time() > self._deadline:
                raise jinja2.TemplateError(f"it takes more than {self.seconds:.0f} seconds")

    def room(self, length: int) -> None:
        """Charge a string or list of `length`, before it is made."""
        if length > self.longest:
            raise jinja2.TemplateError(f"it makes a text or list of {length:,} items; {self.longest:,} are allowed")
        self.step(1 + length // 64)

    def read(self, pieces: Iterable[str]) -> Iterator[str]:
        """Join the pieces that a template writes, up to the limit."""
        length = 0
        for piece in pieces:
            length += len(piece)
            if length > self.longest:
                raise jinja2.TemplateError(f"it writes more than {self.longest:,} characters")
            yield piece

    def charge(self, value: Any) -> Any:
        """Charge a value that was made, with everything inside it (a list in itself twice counts twice)."""
        if isinstance(value, str):
            self.room(len(value))
        elif isinstance(value, list | tuple | dict | set):
            found, waiting = 0, [value]
            while waiting:
                inner = waiting.pop()
                found += len(inner)
                self.room(found)
                items = [*inner.keys(), *inner.values()] if isinstance(inner, dict) else inner
                waiting.extend(item for item in items if isinstance(item, list | tuple | dict | set))
        return value


_CURRENT: ContextVar[Budget | None] = ContextVar("template budget", default=None)


def budget() -> Budget:
    """The budget of the rendering in progress; a fresh one outside of any."""
    return _CURRENT.get() or Budget()


@contextlib.contextmanager
def limited(limits: Budget) -> Iterator[Budget]:
    """Within it, `budget()` is `limits`."""
    token = _CURRENT.set(limits)
    try:
        yield limits
    finally:
        _CURRENT.reset(token)


def check_width(value: Any, operation: str) -> int:
    """A width that a template asks for, as int. Raises: jinja2.TemplateError beyond `MAX_WIDTH`."""
    width = int(value)
    if abs(width) > MAX_WIDTH:
        raise jinja2.TemplateError(f"{operation} of a width beyond {MAX_WIDTH}")
    return width
