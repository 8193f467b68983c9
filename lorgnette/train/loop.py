"""The training loop, for every stage of every run: build, restore, then step by step.

A run's folder holds `run.yaml` (its settings), `log.jsonl` (one row per step) and `checkpoints/`. Starting it again
goes on from the last checkpoint, to the same weights bit for bit on the CPU.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

from lorgnette.data.loader import read_steps
from lorgnette.data.plan import digest_of
from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.files import write_text
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, StageConfig
from lorgnette.train import checkpoint
from lorgnette.train.adapters import merge_adapters
from lorgnette.train.build import build
from lorgnette.train.feed import open_steps
from lorgnette.train.log import Display, Log, Row
from lorgnette.train.optim import build_optimiser, schedule, set_lr
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import train_step


class Interrupted(LorgnetteError):
    """Training was asked to stop (Ctrl-C or SIGTERM); what was done is saved."""


class Trainer:
    """A run in progress: the model, where it stands, and where it writes.

    folder: created if missing. An unfinished run of the same settings found there is gone on with.
    Raises: SettingsError if the folder holds a run of other settings.
    """

    def __init__(self, run: Run, folder: Path, console: Console | None = None) -> None:
        self.run, self.folder = run, folder
        self.display = Display(console or Console())
        torch.set_num_threads(run.threads or torch.get_num_threads())
        self._claim_folder()
        self.model, self.processor = build(run)
        found = checkpoint.checkpoints(self._checkpoints)
        self._restore_from = found[-1] if found else None
        self.progress = (
            checkpoint.read_progress(found[-1]) if found else checkpoint.Progress(run.digest(), 0, 0, 0, seconds=0.0)
        )
        self._stop = False

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def _claim_folder(self) -> None:
        settings = self.folder / "run.yaml"
        if settings.exists():
            found = Run.load(settings)
            if found != self.run:
                key, (old, new) = next(iter(found.diff(self.run).items()))
                raise SettingsError(
                    f"{self.folder} holds a run of other settings ({key} is {old} there, {new} here):"
                    " choose another folder, or remove this one"
                )
        write_text(settings, self.run.to_yaml())

    def train(self) -> VLM:
        """Train all stages to their end. Returns the model, adapters merged.

        Raises: Interrupted on Ctrl-C or SIGTERM, after saving; any LorgnetteError that a sample or a step met.
        """
        log = Log(self.folder / "log.jsonl", self.progress.total_step)
        try:
            with self._stop_on_signals(), self.display:
                for number in range(self.progress.stage, len(self.run.stages)):
                    self._train_stage(number, self.run.stages[number], log)
        finally:
            log.close()
        self.model.eval()
        return self.model

    def _train_stage(self, number: int, stage: StageConfig, log: Log) -> None:
        finished = self.progress.step if self.progress.stage == number else 0
        parts = prepare_parts(self.model, stage, seed=self.run.seed + number)
        optimiser = build_optimiser(self.model, stage)
        if self._restore_from is not None:
            checkpoint.restore_model(self._restore_from, self.model)
            checkpoint.restore_optimiser(self._restore_from, optimiser)
            self._restore_from = None
        if finished < stage.steps:
            self.display.start(stage.name, stage.steps, finished, parts)
        self.model.train()
        steps = open_steps(self.run, number, self.processor, folder=self.folder)
        before = time.perf_counter()
        for step, batches in enumerate(read_steps(steps, finished, stage.steps, self.run.loader), finished):
            waited = time.perf_counter() - before
            torch.manual_seed(hash((self.run.seed, number, step)))  # dropout too is a function of the step
            set_lr(optimiser, share := schedule(stage, step))
            result = train_step(self.model, batches, optimiser, stage.clip)
            now = time.perf_counter()
            self._advance(number, step + 1, now - before)
            row = Row(
                total_step=self.progress.total_step,
                stage=stage.name,
                step=step + 1,
                loss=result.loss,
                lr=stage.lr * share,
                grad_norm=result.grad_norm,
                samples=result.samples,
                tokens=result.tokens,
                learned=result.learned,
                images=result.images,
                seconds=self.progress.seconds,
                waited=waited,
                data=digest_of(ref for batch in batches for ref in batch.refs),
                replaced=tuple(sentence for batch in batches for sentence in batch.replaced),
            )
            log.write(row)
            self.display.advance(row, now - before)
            before = time.perf_counter()
            self._save_if_due(optimiser, last=step + 1 == stage.steps)
        merge_adapters(self.model)

    def _advance(self, stage: int, step: int, seconds: float) -> None:
        self.progress = checkpoint.Progress(
            self.progress.run, stage, step, self.progress.total_step + 1, self.progress.seconds + seconds
        )

    def _save_if_due(self, optimiser: torch.optim.Optimizer, last: bool) -> None:
        settings = self.run.checkpoints
        if last or self._stop or self.progress.step % settings.every == 0:
            checkpoint.save(self._checkpoints, self.progress, self.model, optimiser, settings.keep)
        if self._stop and self.progress.total_step < self.run.steps:
            raise Interrupted(
                f"stopped after step {self.progress.total_step} of {self.run.steps}, which is saved in {self.folder};"
                " the same command goes on from there"
            )

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end training after the step in flight. A second one ends it at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)
