"""Output for people and programs: text as it is, on whatever stream there is.

Rich reads brackets as markup and `:names:` as emoji, and paths, names and answers may hold both: they are printed by
`say`, on a console of `new_console`. A narrow terminal cuts nothing of a `progress_bar` but its title.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

ASCII_FORMS = {"●": "*", "▦": "#", "█": "#", "░": ".", "▀": "^", "·": "-", "×": "x", "…": "...", "–": "-", "—": "-"}
"""Marks of lorgnette's own output where a stream cannot write them; all else is escaped."""


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text as it is, in tables too."""
    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


def say(console: Console, text: str, style: str = "", end: str = "\n") -> None:
    """Print text as it is, without wrapping its lines."""
    console.print(Text(text, style=style, end=""), end=end, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, with characters escaped where the stream cannot write them."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text)


def adapt_streams() -> None:
    """Let the standard streams escape what they cannot write, instead of failing in the midst of it."""
    codecs.register_error("lorgnette", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="lorgnette")


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if first in ASCII_FORMS:
        return ASCII_FORMS[first], error.start + 1
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(one)


class CutText(ProgressColumn):
    """A field of the task, or its title, cut where the terminal is narrow: the only column that gives way."""

    def __init__(self, field: str | None = None) -> None:
        super().__init__()
        self.field = field

    def render(self, task: Task) -> Text:
        text = task.description if self.field is None else task.fields[self.field]
        return Text(text, no_wrap=True, overflow="ellipsis")


class Rate(ProgressColumn):
    """Things done a second, once some were."""

    def __init__(self, unit: str = "") -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.unit = f" {unit}" if unit else ""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text()
        return Text(f"{speed:,.{0 if speed >= 100 else 1}f}{self.unit}/s", style="progress.data.speed")


def count_columns(*between: ProgressColumn) -> tuple[ProgressColumn, ...]:
    """A short bar, how many are done of how many, other columns, and the time left: never cut."""
    return (
        BarColumn(bar_width=10, table_column=Column(no_wrap=True, min_width=10)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *between,
        TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=7)),
    )


def progress_bar(console: Console | None = None, unit: str = "", *, transient: bool = True) -> Progress:
    """A line per task: its title, how much is done, the rate, in `unit` a second, and the time left."""
    return Progress(CutText(), *count_columns(Rate(unit)), console=console, transient=transient)


def shown_in(bar: Progress, title: str) -> Callable[[int, int], None]:
    """A new line of the bar, as what is told how many are done, and of how many."""
    line = bar.add_task(title, total=None)
    return lambda done, total: bar.update(line, completed=done, total=total)


@contextmanager
def advancing(
    console: Console | None, title: str, total: int | None, unit: str, *, transient: bool = False
) -> Iterator[Callable[..., None]]:
    """A bar of one line, as what is told how many more are done (1 unless given); silent without a console."""
    if console is None:
        yield lambda more=1: None
        return
    with progress_bar(console, unit, transient=transient) as bar:
        line = bar.add_task(title, total=total)
        yield lambda more=1: bar.advance(line, more)
