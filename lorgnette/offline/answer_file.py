"""The file of a batch job's answers, JSONL or parquet.

Answers are appended to a second file beside it, so that a kill loses none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lorgnette.data.parquet import has_columns, write_rows
from lorgnette.errors import DataError
from lorgnette.eval.results import rank_files
from lorgnette.files import check_own, explain_disk, hold
from lorgnette.untrusted import parse_json, quoted

ANSWER_COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "finish": pa.string(),
        "prompt_tokens": pa.int64(),
        "tokens": pa.int64(),
        "error": pa.string(),
        "settings": pa.string(),
    }
)
"""Columns of an answer: `finish` is stop or length, `error` says why there is no text, `settings` is the digest of the
model and of all that decides an answer but its prompt."""
_ENDINGS = (".jsonl", ".parquet")
AnswerRow = dict[str, Any]


class AnswerFile:
    """Answers by the id of their prompt: those of earlier runs of the same job, and those that are added."""

    def __init__(self, path: Path, settings: str) -> None:
        """Read what there is. settings: digest of model and sampling.

        Raises: DataError for another ending, or answers by other settings; DiskError for a file that is not ours, or
        that another process is writing.
        """
        if path.suffix.lower() not in _ENDINGS:
            raise DataError(f"{path}: ends with none of {', '.join(_ENDINGS)}; name a file that does")
        self.path, self.settings = path, settings
        self.partial = path.with_name(path.name + ".partial")
        with explain_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_name(f".{path.name}.lock")
        self._let_go = hold(self._lock, f"{path}: another process is writing it; wait until it has ended")
        try:
            self.answers = {row["id"]: row for row in [*self._whole(), *self._appended()] if row["error"] is None}
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes write the file."""
        self._lock.unlink(missing_ok=True)
        self._let_go()

    @property
    def is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    def _whole(self) -> list[AnswerRow]:
        own = functools.partial(has_columns, columns=ANSWER_COLUMNS) if self.is_parquet else _has_answers
        check_own(self.path, own)
        if not self.path.exists() or not self.path.stat().st_size:
            return []
        found = pq.read_table(self.path).to_pylist() if self.is_parquet else _lines(self.path)
        return self._checked(self.path, found)

    def _appended(self) -> list[AnswerRow]:
        check_own(self.partial, _has_answers)
        rank_files.mend(self.partial)
        return self._checked(self.partial, _lines(self.partial) if self.partial.exists() else [])

    def _checked(self, path: Path, rows: list[AnswerRow]) -> list[AnswerRow]:
        if any(row["settings"] != self.settings for row in rows):
            raise DataError(
                f"{path}: holds answers by another model, prompt or sampling; give another --out, or move it away"
            )
        return rows

    def add(self, row: AnswerRow) -> None:
        """Keep an answer; it survives a kill once this returns."""
        if row["error"] is None:
            self.answers[row["id"]] = row
        rank_files.append(self.partial, [row])

    def finish(self, order: Iterable[str], failed: Iterable[AnswerRow]) -> None:
        """Write the whole file in the order of the prompts; answers to prompts that are gone stand at its end."""
        rows = self.answers | {row["id"]: row for row in failed}
        known = dict.fromkeys(order)
        listed = [rows[name] for name in (*known, *(name for name in rows if name not in known)) if name in rows]
        if self.is_parquet:
            write_rows(self.path, listed, ANSWER_COLUMNS)
        else:
            rank_files.write_rows(self.path, listed)
        self.partial.unlink(missing_ok=True)


def _lines(path: Path) -> list[AnswerRow]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict) or row.keys() != set(ANSWER_COLUMNS.names):
            raise DataError(f"{path}, line {number}: is no answer ({quoted(line, 80)}); move the file away")
        found.append(row)
    return found


def _has_answers(content: bytes) -> bool:
    """Return whether a file begins with an answer, or with the piece of one that a kill left."""
    return content.startswith(b'{"id": ')
