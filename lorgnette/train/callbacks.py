"""Callbacks: code that watches a run, told of its events by `Trainer(..., callbacks=...)`, as in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorgnette.run import Run, StageConfig

if TYPE_CHECKING:  # so that reading a log needs no torch
    from lorgnette.model.vlm import VLM
    from lorgnette.train.checkpoint.manager import Progress
    from lorgnette.train.parallel import DistributedContext


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """Metrics of one step, as `log.jsonl` has them."""

    total_step: int
    stage: str
    step: int
    loss: float
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    supervised_tokens: int
    images: int
    seconds: float
    """Cumulative training time at the end of this step, over all sessions."""
    waited: float
    """Seconds of this step spent waiting for its batch."""
    data: str = ""
    """Digest of the samples that the step's batches held; `lorgnette data plan --verify` compares it with the plan."""
    replaced: tuple[str, ...] = ()
    """A sentence for each sample that could not be used, with the one that replaced it."""
    sources: Mapping[str, float] = field(default_factory=dict)
    """Loss of each source's supervised tokens."""
    flops: float = 0.0
    """Floating-point operations that the step's mathematics needs."""
    spike: str = ""
    """Divergence that was detected at this step, and what was done about it."""


@dataclass(frozen=True, slots=True)
class TrainerState:
    """State of a run at one event."""

    progress: Progress
    """Finished steps and training time."""
    stage: StageConfig
    model: VLM
    """The model in training, adapters in place; ranks hold shards of it. Only to be read."""
    folder: Path
    """Folder of the run."""
    world: DistributedContext
    step_seconds: float
    """Duration of the last step, loading of its batch included."""
    stop: Callable[[], None]
    """Asks the trainer to save and stop after this step, on all ranks."""


class Callback:
    """Base class of callbacks. Every event does nothing unless a subclass overrides it.

    Events are called on every rank, in the order in which callbacks are given. A callback may read the run, but not
    change its model or its random numbers. An exception ends the run, except a DiskError during training, which is
    printed; `on_run_end` is called then too.
    """

    def on_run_begin(self, run: Run, state: TrainerState) -> None:
        """Called before data are prepared; `state` is that of the checkpoint where a run is resumed."""

    def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
        """Called after each step, before the evaluation and the checkpoint that may follow it."""

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        """Called after an evaluation.

        kind: `validation`, with each source's loss in nats, or `evaluation`, with each task's score in percent.
        """

    def on_checkpoint(self, run: Run, state: TrainerState, path: Path) -> None:
        """Called when a checkpoint is complete, which may be some steps after the step that it is of."""

    def on_run_end(self, run: Run, state: TrainerState) -> None:
        """Called when the run has finished, was interrupted or failed."""


class CallbackList(Callback):
    """Calls several callbacks in turn.

    tolerate: context in which events during training are called; it may handle errors of one callback.
    """

    def __init__(self, callbacks: Sequence[Callback], tolerate: Callable[[], AbstractContextManager[None]]) -> None:
        self.callbacks, self.tolerate = callbacks, tolerate

    def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
        for callback in self.callbacks:
            with self.tolerate():
                callback.on_step_end(run, state, metrics)

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        for callback in self.callbacks:
            with self.tolerate():
                callback.on_evaluation(run, state, kind, values)

    def on_checkpoint(self, run: Run, state: TrainerState, path: Path) -> None:
        for callback in self.callbacks:
            with self.tolerate():
                callback.on_checkpoint(run, state, path)
