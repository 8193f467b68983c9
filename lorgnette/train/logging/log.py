"""The logs of a run: a row for each step, and for each validation and evaluation."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.files import explain_disk, write_text
from lorgnette.run import Run
from lorgnette.train.callbacks import Callback, StepMetrics, TrainerState
from lorgnette.untrusted import parse_json

VALUES = {"validation": "losses", "evaluation": "scores"}
"""Kind of an evaluation -> key of its values in a row."""


class StepLog(Callback):
    """Writes a run's `log.jsonl`, one row per step, and its `validation.jsonl` and `evaluation.jsonl`.

    Rows of steps that were lost when a process was killed are dropped on resume.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: io.FileIO | None = None
        self._waiting = b""

    def on_run_begin(self, run: Run, state: TrainerState) -> None:
        """Raises: DiskError."""
        _write_rows(self.path, [row for row in read_log(self.path) if row["total_step"] <= state.progress.total_step])
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed at the end of the run

    def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
        """Raises: DiskError where the disk is full. The row is written with the next one then, and no line is torn."""
        assert self.file is not None
        self._waiting += (json.dumps(asdict(metrics)) + "\n").encode()
        with explain_disk(self.path):
            end = self.file.seek(0, os.SEEK_END)
            try:
                if self.file.write(self._waiting) < len(self._waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self.file.truncate(end)
                raise
        self._waiting = b""

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        """Raises: DiskError."""
        step, path = state.progress.total_step, self.path.with_name(f"{kind}.jsonl")
        rows = [row for row in read_log(path) if row["total_step"] < step]
        _write_rows(path, [*rows, {"total_step": step, "stage": state.stage.name, VALUES[kind]: values}])

    def on_run_end(self, run: Run, state: TrainerState) -> None:
        if self.file is not None:
            self.file.close()


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


NUMBERS = {
    "step",
    "loss",
    "lr",
    "grad_norm",
    "samples",
    "tokens",
    "supervised_tokens",
    "images",
    "seconds",
    "waited",
    "flops",
}
_TABLES = {"sources", "losses", "scores"}


def _is_row(row: dict[str, Any]) -> bool:
    """True if a row names a step and a stage, and its other known keys have values of their types."""
    if type(row.get("total_step")) is not int or not isinstance(row.get("stage"), str):
        return False
    if not all(_is_number(row[key]) for key in (NUMBERS | {"total_step"}) & row.keys()):
        return False
    if type(row.get("step", 0)) is not int:
        return False
    tables = [row[key] for key in _TABLES & row.keys()]
    if any(not isinstance(one, dict) or not all(map(_is_number, one.values())) for one in tables):
        return False
    replaced = row.get("replaced", [])
    if not isinstance(replaced, list) or not all(isinstance(sentence, str) for sentence in replaced):
        return False
    return all(isinstance(row.get(key, ""), str) for key in ("data", "spike"))


def _is_number(value: Any) -> bool:
    """True for a float, and an integer of 64 bits: charts and rates are computed in floats."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`; a last line cut short by a kill is left out, and all from the first that is no row."""
    if not os.path.isfile(path):
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = parse_json(line, str(path))
        except DataError:
            break
        if isinstance(row, dict) and "learned" in row:  # as versions before 0.4 wrote it
            row["supervised_tokens"] = row.pop("learned")
        if not isinstance(row, dict) or not _is_row(row):
            break
        rows.append(row)
    return rows
