"""Rows of a benchmark's parquet files: found in a folder, on the hub or in the built-in corpus, read in any order."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from itertools import accumulate
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.shards import Shards, is_url, list_shards
from lorgnette.data.sources.values import missing
from lorgnette.errors import DataError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[^:]+)?")
BUILT_IN = "builtin:"


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
    """References in the first of these columns that the row has: a text, a list of texts or of {answer: text}.

    A row in which they are null has none. Raises: Refused if no such column is there, or it holds something else.
    """
    column = next((name for name in columns if name in row), None)
    if column is None:
        raise missing(row, columns[0])
    value = row[column]
    if value is None:
        return ()
    if isinstance(value, str | int | float):
        return (str(value),)
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not a list of answers")
    texts = [one.get("answer") if isinstance(one, Mapping) else one for one in value]
    return tuple(str(text) for text in texts if text is not None)
