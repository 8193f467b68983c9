"""Parsers of untrusted JSON and YAML: limits on depth, size and numbers, and every failure as one sentence.

Settings, rows of data, checkpoints, requests and answers of servers are all text that somebody else wrote. They are
parsed here and nowhere else, so that no file can end a command with a traceback or exhaust its memory.
"""

from __future__ import annotations

import copy
import json
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lorgnette.errors import DataError, LorgnetteError

MAX_DEPTH = 100
"""Nested lists and mappings beyond which a text is refused: everything that walks values recursively stays safe."""
MAX_BYTES = 256 * 2**20
"""Bytes of one JSON or YAML text."""
MAX_YAML_VALUES = 1_000_000
"""Values of a YAML text once its aliases are expanded."""
_KEPT_LENGTH = 2**16
"""Characters of the longest YAML file whose value is kept, should it be read again."""
QUOTED = 200
"""Characters of untrusted text that an error message repeats at most."""


def quoted(value: Any, limit: int = QUOTED) -> str:
    """Untrusted text as it may stand in a message: printable, on one line, and at most `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    shown = on_one_line(text[: limit + 1])
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def on_one_line(text: str) -> str:
    """Text with characters escaped that would break its line, steer a terminal, or not be seen."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def parse_json(text: str | bytes | bytearray, where: str, error: type[LorgnetteError] = DataError) -> Any:
    """The value of a JSON text.

    where: names the text in messages (a file, a row, a server's answer). error: the class that is raised.
    Raises: `error` if the text is not JSON, is nested deeper than `MAX_DEPTH`, is longer than `MAX_BYTES`, or holds a
        number of more digits than Python converts.
    """
    if len(text) > MAX_BYTES:
        raise error(f"{where}: {len(text):,} bytes of JSON exceed the limit of {MAX_BYTES:,}")
    try:
        value = json.loads(text)
    except RecursionError:
        raise error(f"{where}: is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as problem:  # JSONDecodeError, UnicodeDecodeError, and integers of too many digits
        raise error(f"{where}: is not JSON ({reason_of(problem)})") from None
    opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opened > MAX_DEPTH:
        _check_shape(value, where, error)
    return value


def read_json(path: str | Path, error: type[LorgnetteError] = DataError) -> Any:
    """The value of a JSON file. Raises: `error` naming the file, as `parse_json`, or if it cannot be read."""
    return parse_json(_read(Path(path), error), str(path), error)


def parse_yaml(text: str, where: str, error: type[LorgnetteError] = DataError) -> Any:
    """The value of a YAML text of plain types: mappings, lists, strings, numbers, booleans, null. Dates stay strings.

    Raises: `error` if the text is not YAML, needs another type, is nested deeper than `MAX_DEPTH`, or is larger than
        `MAX_YAML_VALUES` once its aliases are expanded.
    """
    if len(text) > MAX_BYTES:
        raise error(f"{where}: {len(text):,} characters of YAML exceed the limit of {MAX_BYTES:,}")
    try:
        value = yaml.load(text, _PlainLoader)  # a SafeLoader: constructs nothing but plain types
    except RecursionError:
        raise error(f"{where}: is nested deeper than {MAX_DEPTH} levels") from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark is not None else ""
        said = quoted(str(problem.problem or problem.context))
        raise error(f"{where}: cannot be read as YAML:{place} {said}") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError, KeyError, IndexError) as problem:
        # PyYAML's constructors of numbers and of its own tags raise anything at all
        raise error(f"{where}: cannot be read as YAML: {reason_of(problem)}") from None
    _check_shape(value, where, error, MAX_YAML_VALUES)
    return value


def read_yaml(path: str | Path, error: type[LorgnetteError] = DataError) -> Any:
    """The value of a YAML file. Raises: `error` naming the file, as `parse_yaml`, or if it cannot be read."""
    content = _read(Path(path), error)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: cannot be read as YAML: {reason_of(problem)}") from None
    if len(text) > _KEPT_LENGTH:
        return parse_yaml(text, str(path), error)
    return copy.deepcopy(_parse_kept(text, str(path), error))  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def _parse_kept(text: str, where: str, error: Any) -> Any:
    """As `parse_yaml`, kept by content: a recipe of 60 lines takes 20 ms, and a study reads its base for each cell."""
    return parse_yaml(text, where, error)


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """SafeLoader whose mappings hold each key once, and without YAML 1.1's dates, octal and sexagesimal numbers.

    `2024-13-45`, `010` and `1:30` are text, as they are in YAML 1.2.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            seen = set[str]()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    if (name := f"{key.tag} {key.value}") in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {quoted(key.value, 80)!r} stands twice", key.start_mark
                        )
                    seen.add(name)
        return super().construct_mapping(node, deep)


_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path, error: type[LorgnetteError]) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may have no end
            raise error(f"{path}: cannot be read (it is no regular file)")
        if found.st_size > MAX_BYTES:
            raise error(f"{path}: exceeds the limit of {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as problem:  # ValueError: a null character in the path
        raise error(f"{path}: cannot be read ({reason_of(problem)})") from None


def _check_shape(value: Any, where: str, error: type[LorgnetteError], most_values: int | None = None) -> None:
    """Refuse a value that is nested too deep (as one that holds itself is), or has too many values in all."""
    count = 0
    open_lists = [iter((value,))]
    while open_lists:
        inner = next(open_lists[-1], open_lists)  # the stack itself stands for "no more": no text holds it
        if inner is open_lists:
            open_lists.pop()
            continue
        count += 1
        if most_values is not None and count > most_values:
            raise error(f"{where}: holds more than {most_values:,} values, aliases expanded")
        if isinstance(inner, dict | list | tuple | set):
            open_lists.append(iter(inner.values() if isinstance(inner, dict) else inner))
        if len(open_lists) > MAX_DEPTH + 1:
            raise error(f"{where}: is nested deeper than {MAX_DEPTH} levels")


def reason_of(problem: BaseException) -> str:
    """The message of an error on one line, shortened as text of a source is, or its class where it has none."""
    return quoted(" ".join(str(problem).split()) or type(problem).__name__)
