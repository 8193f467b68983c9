"""Output for people and programs: text as it is, on whatever stream there is.

Rich reads brackets as markup and `:names:` as emoji, and paths, names and answers may hold both: they are printed by
`say`, on a console of `new_console`.
"""

from __future__ import annotations

import codecs
import json
import sys
from typing import Any

from rich.console import Console
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
