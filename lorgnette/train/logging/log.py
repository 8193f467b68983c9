"""Log of a run: a row for each step, and for each validation."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.files import explain_disk, write_text
from lorgnette.untrusted import parse_json


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One step, as it stands in `log.jsonl`."""

    total_step: int
    stage: str
    step: int
    loss: float
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    learned: int
    images: int
    seconds: float
    """Time trained up to this step's end, over all sittings."""
    waited: float
    """Seconds of this step spent waiting for its batch."""
    data: str = ""
    """Digest of the samples that the step's batches held; `lorgnette data plan --verify` compares it with the plan."""
    replaced: tuple[str, ...] = ()
    """A sentence for each sample that could not be used, with what stood in its place."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """Loss of each source's learned tokens."""
    flops: float = 0.0
    """Floating-point operations that the step's mathematics needs."""
    spike: str = ""
    """What stood out, if the step looked like divergence, and what was done."""


class Log:
    """`log.jsonl` of a run: one row per step. Rows of steps that were lost with a kill are dropped on resume."""

    def __init__(self, path: Path, finished_steps: int) -> None:
        kept = [row for row in read_log(path) if row["total_step"] <= finished_steps]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._waiting = b""

    def write(self, row: StepMetrics) -> None:
        """Raises: DiskError where the disk is full. The row is written with the next one then, and no line is torn."""
        self._waiting += (json.dumps(asdict(row)) + "\n").encode()
        with explain_disk(self._path):
            end = self._file.seek(0, os.SEEK_END)
            try:
                if self._file.write(self._waiting) < len(self._waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(end)
                raise
        self._waiting = b""

    def close(self) -> None:
        self._file.close()


NUMBERS = {"step", "loss", "lr", "grad_norm", "samples", "tokens", "learned", "images", "seconds", "waited", "flops"}
TABLES = {"sources", "losses", "scores"}


def _is_row(row: dict[str, Any]) -> bool:
    """Return whether a row names a step and a stage, and what else it has of a row is of a row's types."""
    if type(row.get("total_step")) is not int or not isinstance(row.get("stage"), str):
        return False
    if any(type(row[key]) not in (int, float) for key in NUMBERS & row.keys()) or type(row.get("step", 0)) is not int:
        return False
    tables = [row[key] for key in TABLES & row.keys()]
    if any(
        not isinstance(one, dict) or any(type(value) not in (int, float) for value in one.values()) for one in tables
    ):
        return False
    replaced = row.get("replaced", [])
    if not isinstance(replaced, list) or not all(isinstance(sentence, str) for sentence in replaced):
        return False
    return all(isinstance(row.get(key, ""), str) for key in ("data", "spike"))


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
        if not isinstance(row, dict) or not _is_row(row):
            break
        rows.append(row)
    return rows
