"""What a run tells while it trains: a JSONL file always, a progress bar for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorgnette.files import explain_disk, write_text
from lorgnette.train.stages import TrainablePart


@dataclass(frozen=True, slots=True)
class Row:
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


class Log:
    """`log.jsonl` of a run: one row per step. Rows of steps that were lost with a kill are dropped on resume."""

    def __init__(self, path: Path, finished_steps: int) -> None:
        kept = [row for row in read_log(path) if row["total_step"] <= finished_steps]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, row: Row) -> None:
        with explain_disk(self._path):
            self._file.write(json.dumps(asdict(row)) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a `log.jsonl`; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Display:
    """The bar on a terminal (one bar per stage), or a line every tenth of a stage where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._loss = 0.0
        self._rate = 0.0

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, stage: str, steps: int, done: int, parts: list[TrainablePart]) -> None:
        """Announce a stage: what trains, with counts, before its first step."""
        shown = ", ".join(f"{p.part} {p.mode} {p.trainable:,} of {p.parameters:,}" for p in parts)
        self.console.print(f"[bold]{stage}[/bold]: {steps:,} steps; training {shown}", highlight=False, soft_wrap=True)
        self._steps, self._loss, self._rate = steps, 0.0, 0.0
        self._task = self._bar.add_task(stage, total=steps, completed=done, loss=0.0, rate=0.0)

    def advance(self, row: Row, seconds: float) -> None:
        """Show one more step, which took `seconds`. Loss and rate are smoothed over about 30 steps."""
        keep = 0.97 if self._loss else 0.0
        self._loss = keep * self._loss + (1 - keep) * row.loss
        self._rate = keep * self._rate + (1 - keep) * row.images / seconds
        self._bar.update(self._task, completed=row.step, loss=self._loss, rate=self._rate)
        if not self.console.is_terminal and (row.step % max(1, self._steps // 10) == 0):
            left = (self._steps - row.step) * seconds
            self.console.print(
                f"{row.stage} {row.step}/{self._steps}  loss {self._loss:.3f}"
                f"  {self._rate:.0f} images/s  {left:.0f} s left"
            )
