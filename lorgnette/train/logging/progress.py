"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lorgnette.files import AGAIN, DiskError
from lorgnette.output import say
from lorgnette.run import Run
from lorgnette.train.callbacks import Callback, StepMetrics, TrainerState
from lorgnette.train.logging.log import VALUES
from lorgnette.train.stages import TrainablePart

PEAKS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12}
"""Dense bf16 operations a second of GPUs, as their makers say, by a part of the device's name."""


class ProgressDisplay(Callback):
    """The bar on a terminal (one bar per stage), or a line every tenth of a stage where there is no terminal."""

    def __init__(self, console: Console, device: torch.device | None = None) -> None:
        self.console, self.device = console, device or torch.device("cpu")
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._peak: float | None = None
        self._means: dict[str, float] = {}
        self._warned = ""

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, stage: str, steps: int, done: int, parts: list[TrainablePart]) -> None:
        """Announce a stage: what trains, with counts, before its first step."""
        shown = ", ".join(f"{p.part} {p.mode} {p.trainable:,} of {p.parameters:,}" for p in parts)
        say(self.console, stage, style="bold", end="")
        say(self.console, f": {steps:,} steps; training {shown}")
        self._steps, self._means = steps, {}
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
        """Show one more step. Figures are smoothed over about 30 steps."""
        seconds = state.step_seconds
        for name, value in (
            ("loss", metrics.loss),
            ("tokens", metrics.supervised_tokens / seconds),
            ("images", metrics.images / seconds),
            ("flops", metrics.flops / seconds),
            ("seconds", seconds),
        ):
            before = self._means.get(name, value)
            self._means[name] = 0.97 * before + 0.03 * value
        said = self.said()
        self._bar.update(self._task, completed=metrics.step, said=said)
        if not self.console.is_terminal and (metrics.step % max(1, self._steps // 10) == 0):
            left = (self._steps - metrics.step) * self._means["seconds"]
            say(self.console, f"{metrics.stage} {metrics.step}/{self._steps}  {said}  {left:.0f} s left")

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        said = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        say(self.console, f"step {state.progress.total_step}: {kind} {VALUES[kind]} {said}")

    def said(self) -> str:
        """Loss, supervised tokens and images a second, share of the device's peak, and memory."""
        means = self._means
        share = f"  {means['flops'] / self._peak:.0%} MFU" if self._peak and means["flops"] else ""
        rates = f"{means['tokens']:.0f} supervised tokens/s  {means['images']:.0f} images/s"
        return f"loss {means['loss']:.3f}  {rates}{share}  {memory_gib(self.device):.1f} GiB"


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that the device can do at best; None for a GPU that is not known here.

    On the CPU it is what a large product of matrices reaches now, with the threads that there are.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in PEAKS.items() if part in name), None)
    side = 768
    matrix = torch.ones(side, side)
    times = []
    for _ in range(4):
        before = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - before)
    return 2 * side**3 / min(times)


def memory_gib(device: torch.device) -> float:
    """The most memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform != "darwin" else used / 2**30
