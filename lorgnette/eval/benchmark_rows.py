"""Rows of a benchmark's parquet files: found in a folder, on the hub or in the built-in corpus, read in any order."""

from __future__ import annotations

import ast
import bisect
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatch
from itertools import accumulate
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.shards import Shards, is_url, list_shards
from lorgnette.data.sources.reading.values import missing
from lorgnette.errors import DataError
from lorgnette.files import HUB_ID
from lorgnette.hub.source import BUILT_IN
from lorgnette.untrusted import MAX_DEPTH, parse_json, quoted

MOST_WHOLE = 2**53
"""Whole numbers beyond it are not exact in a column of floats."""
LONGEST_WRITTEN = 2**20
"""Characters of a list written as text."""
_LIST_WRITTEN = re.compile(r"\s*(?:array\()?\[.*\]\)?\s*(?:,\s*dtype=\w+\))?\s*$", re.DOTALL)
_BRACKETED = re.compile(r"""\[[^,'"\d]+\]""")
"""A text in brackets that is no list: `[illegible]`."""
_QUOTES_WRITTEN = re.compile(r"""\s*(?:array\()?\[\s*['"].*\]""", re.DOTALL)
"""A list of quoted texts: within a list, only such a text is taken for one."""
_SIDE_BY_SIDE = re.compile(r"""((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))\s+(?=['"])""")


def find_shards(root: str, files: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """The parquet files of a split.

    root: a hub id, a URL, a file, or a folder. files: a glob below it. In a folder that keeps them elsewhere, files of
    that name are taken, and failing that all that do not have the name of another split (`others`, globs too).
    Raises: DataError if there are none.
    """
    if root.startswith(BUILT_IN) or os.path.isfile(root):
        return list_shards(root)
    if os.path.isdir(root):
        return _in_folder(root, files, others)
    if is_url(root):
        return list_shards(f"{root.rstrip('/')}/{files}")
    if not HUB_ID.fullmatch(root):
        raise DataError(f"{root}: no such file or folder, and not the id of a dataset on the hub (owner/name)")
    return list_shards(f"hf://datasets/{root}/{files}")


def _in_folder(root: str, files: str, others: Sequence[str]) -> tuple[str, ...]:
    there = list_shards(root)
    below = {path: os.path.relpath(path, root).replace(os.sep, "/") for path in there}
    name = os.path.basename(files)
    for fits in (lambda path: fnmatch(path, files), lambda path: fnmatch(os.path.basename(path), name)):
        found = tuple(path for path in there if fits(below[path]))
        if found:
            return found
    foreign = [os.path.basename(other) for other in others]
    rest = tuple(path for path in there if not any(fnmatch(os.path.basename(path), other) for other in foreign))
    if not rest:
        raise DataError(f"{root}: holds no file {files}, only those of other splits; get this one too")
    return rest


class Rows(Sequence[dict[str, Any]]):
    """The rows of parquet files, in the order of their names."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.shards = Shards(paths)
        self._groups = [
            (shard, group, rows)
            for shard in range(len(self.shards.paths))
            for group, rows in enumerate(self.shards.groups(shard))
        ]
        self._starts = list(accumulate((rows for *_, rows in self._groups), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> dict[str, Any]:  # type: ignore[override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = bisect.bisect_right(self._starts, number) - 1
        shard, group, _ = self._groups[place]
        return self.shards.read(shard, group, number - self._starts[place])

    def column(self, name: str) -> list[Any]:
        """One column of all rows, read without the others. Raises: DataError if a file lacks it."""
        shards = Shards(self.shards.paths, (name,))
        return [row[name] for shard, group, _ in self._groups for row in shards.rows(shard, group)]


def text_of(row: Mapping[str, Any], *columns: str) -> str:
    """The text in the first of these columns that the row has. Raises: Refused if it has none, or a blank one."""
    column = next((name for name in columns if row.get(name) is not None), columns[0])
    value = row.get(column)
    if value is None:
        raise missing(row, column)
    if not str(value).strip():
        raise Refused("no text", f"{column!r} is blank")
    return str(value)


def answers_of(row: Mapping[str, Any], *columns: str) -> tuple[str, ...]:
    """References in the first of these columns that the row has: texts or numbers, one or a list of them, or of
    mappings with a key `answer`; a list may be written as text, as Python, JSON or numpy write it.

    A row in which they are null has none. Raises: Refused if no such column is there, or it holds something else.
    """
    column = next((name for name in columns if name in row), None)
    if column is None:
        raise missing(row, columns[0])
    value = row[column]
    if isinstance(value, str) and _LIST_WRITTEN.match(value) and not _BRACKETED.fullmatch(value.strip()):
        value = list_written(value, column)
    return tuple(_references(value, column))


def text_written(value: Any) -> str:
    """A value as the text of an answer: a whole number has no decimal point, whatever type the column has."""
    if isinstance(value, float) and value.is_integer() and abs(value) < MOST_WHOLE:
        return str(int(value))
    return str(value)


def list_written(text: Any, column: str) -> list[Any]:
    """A list, or one written as text, as MMMU keeps its options and VLMEvalKit its references. Raises: Refused."""
    if isinstance(text, list):
        return text
    value = _read_written(str(text).strip()) if len(str(text)) <= LONGEST_WRITTEN else None
    if not isinstance(value, list):
        raise Refused("wrong type", f"{column!r} is not a list: {quoted(str(text), 60)!r}")
    return value


def _references(value: Any, column: str) -> Iterator[str]:
    """Every reference in a value of a column."""
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if value is None or value != value:  # null, or the not-a-number that pandas writes for it
        return
    if isinstance(value, str):
        inner = _read_written(value.strip()) if _QUOTES_WRITTEN.match(value) else None
        if isinstance(inner, list):
            yield from _references(inner, column)
        else:
            yield value
    elif isinstance(value, bool | int | float | Decimal):
        yield text_written(value)
    elif isinstance(value, Mapping):
        key = next((key for key in ("answer", "answers", "text") if key in value), None)
        if key is None:
            raise Refused("wrong type", f"{column!r} holds a mapping without a key 'answer'")
        yield from _references(value[key], column)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for one in value:
            yield from _references(one, column)
    else:
        raise Refused("wrong type", f"{column!r} holds a {type(value).__name__}, not answers or a list of them")


def _read_written(text: str) -> Any:
    """The value of a list as JSON, Python or numpy write it; None if it is none of these."""
    text = text.removeprefix("array(").rstrip(")") if text.startswith("array(") else text
    text = re.sub(r",\s*dtype=\w+\s*$", "", text)
    with contextlib.suppress(DataError):
        return parse_json(text, "a list")
    if text.count("[") + text.count("(") + text.count("{") > MAX_DEPTH:
        return None
    try:
        # numpy writes no commas, and Python would join the texts that then stand side by side
        return ast.literal_eval(_SIDE_BY_SIDE.sub(r"\1, ", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
