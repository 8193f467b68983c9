"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column

from lorgnette.files import AGAIN, DiskError
from lorgnette.output import CutText, count_columns, say
from lorgnette.run import Run
from lorgnette.train.callbacks import Callback, StepMetrics, TrainerState
from lorgnette.train.logging.log import VALUES
from lorgnette.train.stages import TrainablePart

PEAKS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12}
"""Dense bf16 operations a second of GPUs, as their makers say, by a part of the device's name."""
BAR_STEPS = 30
"""Steps that the figures of the bar are means of."""


class _Figures(NamedTuple):
    """Figures of one step."""

    loss: float
    supervised_tokens: int
    images: int
    flops: float
    seconds: float


class ProgressDisplay(Callback):
    """The bar on a terminal (one bar per stage), or a line every tenth of a stage where there is no terminal.

    Losses are means of the steps since the last line (of the bar: the last `BAR_STEPS`), with the last step's beside.
    """

    def __init__(self, console: Console, device: torch.device | None = None) -> None:
        self.console, self.device = console, device or torch.device("cpu")
        self._bar = Progress(  # the time left stands before the figures, which a narrow terminal cuts
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            *count_columns(),
            CutText("said"),
            console=console,
            disable=not console.is_terminal,
        )
        self._peak: float | None = None
        self._recent = deque[_Figures]()
        self._warned = ""

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, stage: str, steps: int, done: int, parts: list[TrainablePart]) -> None:
        """Announce a stage: where it goes on if it was begun, and what trains, with counts, before its first step."""
        shown = ", ".join(f"{p.part} {p.mode} {p.trainable:,} of {p.parameters:,}" for p in parts)
        begun = f"going on after step {done:,}; " if done else ""
        say(self.console, stage, style="bold", end="")
        say(self.console, f": {steps:,} steps; {begun}training {shown}")
        self._steps, self._recent = steps, deque(maxlen=BAR_STEPS if self.console.is_terminal else None)
        self._peak = self._peak or peak_flops(self.device)
        self._task = self._bar.add_task(stage, total=steps, completed=done, said="")

    def warn(self, sentence: str) -> None:
        """Print a warning above the progress bar."""
        say(self.console, sentence, style="yellow")

    @contextmanager
    def despite_full_disk(self) -> Iterator[None]:
        """Context that warns about a file that cannot be written and continues; a repeated warning is printed once."""
        try:
            yield
        except DiskError as error:
            self.warn_of_disk(error)

    def warn_of_disk(self, error: DiskError) -> None:
        """Warn about a file that cannot be written, where training continues."""
        sentence = f"{str(error).removesuffix(AGAIN)}; training continues, and the last good checkpoint stays"
        if sentence != self._warned:
            self.warn(sentence)
        self._warned = sentence

    def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
        """Show one more step."""
        counts = metrics.supervised_tokens, metrics.images, metrics.flops
        self._recent.append(_Figures(metrics.loss, *counts, state.step_seconds))
        said = self.said()
        self._bar.update(self._task, completed=metrics.step, said=said)
        if not self.console.is_terminal and (metrics.step % max(1, self._steps // 10) == 0):
            left = (self._steps - metrics.step) * sum(one.seconds for one in self._recent) / len(self._recent)
            say(self.console, f"{metrics.stage} {metrics.step}/{self._steps}  {said}  {left:.0f} s left")
            self._recent.clear()

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        said = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        say(self.console, f"step {state.progress.total_step}: {kind} {VALUES[kind]} {said}")

    def said(self) -> str:
        """Mean loss and the last step's, supervised tokens and images a second, share of the device's peak, memory."""
        recent = self._recent
        seconds = sum(one.seconds for one in recent)
        flops = sum(one.flops for one in recent) / seconds
        share = f"  {flops / self._peak:.0%} MFU" if self._peak and flops else ""
        tokens, images = (sum(getattr(one, name) for one in recent) for name in ("supervised_tokens", "images"))
        loss = f"loss {sum(one.loss for one in recent) / len(recent):.3f} (last {recent[-1].loss:.3f})"
        used = memory_gib(self.device)
        memory = f"  {used:.1f} GiB" if used is not None else ""
        return f"{loss}  {tokens / seconds:.0f} supervised tokens/s  {images / seconds:.0f} images/s{share}{memory}"


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that the device can do at best; None for a GPU that is not known here.

    On the CPU it is what a large product of matrices reaches now, with the threads that there are.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in PEAKS.items() if part in name), None)
    if device.type != "cpu":
        return None
    side = 768
    matrix = torch.ones(side, side)
    times = []
    for _ in range(4):
        before = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - before)
    return 2 * side**3 / min(times)


def memory_gib(device: torch.device) -> float | None:
    """The most memory used so far: of the GPU, or of this process; None where the system does not say (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform != "darwin" else used / 2**30
