"""Several processes on one evaluation. They share a folder and nothing else: no process waits for another.

Each takes a run of neighbouring questions, which its number alone decides, and writes files of its own, such as
`examples-00001-of-00004.jsonl`; the only process writes `examples.jsonl`. Whoever finds that all is there joins them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Strict

from lorgnette.data.rejected import RejectedRow
from lorgnette.errors import DataError, LorgnetteError, SettingsError
from lorgnette.files import explain_disk, hold, is_held, write_text
from lorgnette.settings import typed
from lorgnette.untrusted import parse_json

_Item = TypeVar("_Item")
StoredRow = dict[str, Any]
ROWS_CONFIG = ConfigDict(extra="forbid")
"""Validation of stored rows: an unknown key, like a value of another type, means that the file is damaged."""
StrictIndex = Annotated[int, Strict()]
"""Questions are known by it: the text `1` or true would be another question, or stand for one."""
_TRIES = 5
"""Times that files are listed again when another process joins them meanwhile."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank of this process, counted from 0, and the number of processes."""

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            raise SettingsError(f"rank {self.number} of {self.of}: ranks are counted from 0 and below their number")

    @classmethod
    def of_torchrun(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Read RANK and WORLD_SIZE as torchrun sets them; a single process without them. Raises: SettingsError."""
        number, of = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (number.isdecimal() and of.isdecimal()):
            raise SettingsError(f"RANK is {number!r} and WORLD_SIZE is {of!r}; both must be numbers, as torchrun sets")
        return cls(int(number), int(of))

    def share(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """This process's part: neighbours, so that what they have in common is read once."""
        first, last = (len(items) * number // self.of for number in (self.number, self.number + 1))
        return items[first:last]

    def file(self, folder: Path, kind: str) -> Path:
        """File of this process for rows of a kind."""
        part = f"-{self.number:05d}-of-{self.of:05d}" if self.of > 1 else ""
        return folder / f"{kind}{part}.jsonl"

    def claim(self, folder: Path) -> Callable[[], None]:
        """Hold a results folder until this process ends or calls what is returned.

        Ranks of one number of processes share it, each by a lock file of its own. Each takes its own before it looks at
        those of other numbers, so that of two evaluations which start at once both may be refused, but never neither.
        Raises: LorgnetteError if another process has this rank, or an evaluation by another number of processes runs.
        """
        refusal = f"{folder}: another process evaluates into this folder; wait for it, or choose another one"
        shared = [Rank(number, self.of).file(folder, ".examples").with_suffix(".lock") for number in range(self.of)]
        release = hold(shared[self.number], refusal)
        if any(is_held(lock) for lock in set(folder.glob(".examples*.lock")) - set(shared)):
            release()
            raise LorgnetteError(refusal)
        return release


def parts(folder: Path, kind: str) -> list[Path]:
    """The files of a kind that single processes wrote and nobody has joined yet."""
    return sorted(folder.glob(f"{kind}-*-of-*.jsonl"))


def rows(folder: Path, kind: str) -> list[tuple[str, StoredRow]]:
    """Every whole row of a kind and where it stands, joined ones first. The last line of a file may be cut short.

    Raises: DataError for a damaged row before the last.
    """
    for _ in range(_TRIES):
        try:
            single, joined = parts(folder, kind), folder / f"{kind}.jsonl"  # who joins writes before taking away
            files = [joined, *single] if joined.exists() else single
            return [row for file in files for row in _rows(file)]
        except FileNotFoundError:  # joined since they were listed
            continue
    raise DataError(f"{folder}: its files change while they are read; try again")


def _rows(file: Path) -> Iterator[tuple[str, StoredRow]]:
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        try:
            row = parse_json(line, where) if line else None
        except DataError:  # not JSON, or cut within a character
            if number < len(lines):
                raise damaged(where) from None
            continue
        if row is not None and not isinstance(row, dict):
            raise damaged(where)
        if row is not None:
            yield where, row


def damaged(where: str) -> DataError:
    """Return the error for a row that cannot be read."""
    return DataError(f"{where}: damaged; delete it and run again")


def lines(rows: Sequence[StoredRow]) -> str:
    """Rows as text, one a line. Half of a surrogate pair, which a server may send, stays an escape."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text.encode("utf-8", "backslashreplace").decode()


def mend(file: Path) -> None:
    """Drop a last line that a kill cut short."""
    content = file.read_bytes() if file.exists() else b""
    if content and not content.endswith(b"\n"):
        with explain_disk(file):
            os.truncate(file, content.rfind(b"\n") + 1)


def append(file: Path, rows: Sequence[StoredRow]) -> None:
    """Add rows; they survive a kill once this returns."""
    with explain_disk(file), file.open("a", encoding="utf-8") as stream:
        stream.write(lines(rows))
        stream.flush()
        os.fsync(stream.fileno())


def write_rows(file: Path, rows: Sequence[StoredRow]) -> None:
    """Write a whole file of rows, beside it first."""
    write_text(file, lines(rows))


def join(folder: Path, kind: str, rows: Sequence[StoredRow]) -> None:
    """Write all rows of a kind as one file, and take away those of single processes."""
    write_rows(folder / f"{kind}.jsonl", rows)
    for file in parts(folder, kind):
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _RejectedLine:
    """A line of `refused.jsonl`."""

    __pydantic_config__ = ROWS_CONFIG

    index: StrictIndex
    name: str
    reason: str


def rejected_lines(rejected: Mapping[int, RejectedRow]) -> list[StoredRow]:
    """Lines of `refused.jsonl`: rows of a task that could not be asked, by their place in it."""
    return [{"index": index, "name": row.name, "reason": row.reason} for index, row in rejected.items()]


def read_rejected_rows(folder: Path) -> dict[int, RejectedRow]:
    """Rows that some process could not ask, by their place in the task. Raises: DataError for a damaged line."""
    lines = [typed(_RejectedLine, row, where) for where, row in rows(folder, "refused")]
    return {line.index: RejectedRow(line.name, "", line.reason) for line in lines}
