"""Detects training divergence (paper §3.3): a spike in loss or gradient norm, or a slow rise of the smoothed loss."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

import torch
from torch import nn

from lorgnette.errors import LorgnetteError
from lorgnette.run import DivergenceConfig
from lorgnette.train.checkpoint.manager import CheckpointManager, Progress, read_progress, restore
from lorgnette.train.step import StepResult

LEAST_DEVIATION = 0.02
"""Nats. A loss that has become nearly constant may still move by this many times `DivergenceConfig.loss`."""
FIRST = 4
"""Steps at the start of a stage, hardly touched by the warm-up's rates, that a rise is also measured from."""
RISE_ERRORS = 8.0
"""Standard errors that a rise exceeds at least. Noise alone reaches about 7 in 100,000 steps with a window of 50."""
MOST_SKIPS = 10
"""Steps in a row that a run skips before it gives up: what they are compared with stays as it was before them."""
MOST_REWINDS = 3
"""Times that a run goes back to one checkpoint before it gives up."""


class DivergedError(LorgnetteError):
    """Training diverged, and the settings say to stop; the parameters were not touched by the last step."""

    alike = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A detected divergence, described for people."""

    said: str
    since: int | None = None
    """For a rise: the steps of the stage that were finished when the loss was lowest; None for a spike."""


class _Low(NamedTuple):
    """A mean loss that later ones are compared with: when it was, in steps seen by the watch, and of the stage."""

    mean: float
    seen: int
    since: int


class Rise:
    """Watches the smoothed loss of a stage: its mean over the last `window` steps, warm-up included.

    It has risen where it exceeds its lowest, or the mean of the stage's first steps, by the share
    `DivergenceConfig.rise` and by what noise cannot do, with all of its `window` steps taken since.
    """

    def __init__(self, config: DivergenceConfig) -> None:
        self.config = config
        self.restart()

    def restart(self) -> None:
        """Forget all: what comes next is the start."""
        self._losses: deque[float] = deque(maxlen=self.config.window)
        self._seen = 0
        self._lows: dict[int, _Low] = {}

    def see(self, step: int, loss: float) -> Finding | None:
        """Update with one step, counted from 0 in its stage. A rise is reported once; the window is then reset."""
        self._losses.append(loss)
        self._seen += 1
        steps, mean = len(self._losses), fmean(self._losses)
        before = self._lows.get(steps)
        if self._seen == FIRST or (steps == self.config.window and (before is None or mean < before.mean)):
            self._lows[steps] = _Low(mean, self._seen, step + 1)
        for over, low in self._lows.items():
            if self._seen >= low.seen + self.config.window and self._exceeds(mean, low.mean, over):
                self.restart()
                said = f"mean loss {mean:.3f} over {steps} steps after {low.mean:.3f} over {over}"
                return Finding(f"a slow rise: {said} up to step {low.since} of the stage", low.since)
        return None

    def _exceeds(self, mean: float, low: float, over: int) -> bool:
        """True if the mean of a full window is further above `low`, a mean of `over` steps, than noise can explain."""
        error = max(_noise(self._losses), LEAST_DEVIATION) * (1 / len(self._losses) + 1 / over) ** 0.5
        return mean - low > max(self.config.rise * low, RISE_ERRORS * error)


class DivergenceMonitor:
    """Finds divergence in the steps of a stage. A pure function of the steps that it is given, so a log replays it."""

    def __init__(self, config: DivergenceConfig, warmup: int) -> None:
        self.config, self.warmup = config, warmup
        self._losses: deque[float] = deque(maxlen=config.window)
        self._norms: deque[float] = deque(maxlen=config.window)
        self._rise = Rise(config)
        self.spikes = 0
        """Consecutive spikes, up to the last step."""

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Update with the steps that a resumed stage has taken, from its log."""
        for row in rows:
            if {"step", "loss", "grad_norm"} <= row.keys():  # a log that was written to may lack some
                self.see(row["step"] - 1, row["loss"], row["grad_norm"])

    def see(self, step: int, loss: float, grad_norm: float) -> Finding | None:
        """Update with one step, counted from 0 in its stage. Returns the divergence that it shows, if any.

        A spike is measured against earlier steps after the warm-up that updated the model; a rise takes all others.
        """
        spike = self._spike(loss, grad_norm)
        self.spikes = self.spikes + 1 if spike else 0
        if step >= self.warmup and (spike is None or self.config.act == "report"):
            self._losses.append(loss)
            self._norms.append(grad_norm)
        if spike is None:
            return self._rise.see(step, loss)
        if self.config.act == "rewind":
            self._rise.restart()
        return Finding(spike)

    def _spike(self, loss: float, grad_norm: float) -> str | None:
        """Description of a spike; None also while too few steps are known."""
        if len(self._losses) < max(4, self.config.window // 2):
            return None
        mean, usual = fmean(self._losses), median(self._norms)
        deviation = max(pstdev(self._losses), LEAST_DEVIATION)
        if loss > mean + self.config.loss * deviation:
            return f"loss {loss:.3f} after {mean:.3f} (deviation {deviation:.3f}) over {len(self._losses)} steps"
        if usual and grad_norm > self.config.grad_norm * usual:
            return f"gradient norm {grad_norm:.3g} after {usual:.3g} over {len(self._norms)} steps"
        return None


class DivergencePolicy:
    """Acts on what the monitor finds in a stage, as `divergence.act` says: reports, skips, rewinds or stops.

    Every rank makes one, and all act alike on what the first one's monitor finds.
    """

    def __init__(
        self, config: DivergenceConfig, warmup: int, checkpoints: CheckpointManager, warn: Callable[[str], None]
    ) -> None:
        self.act, self.monitor = config.act, DivergenceMonitor(config, warmup)
        self.checkpoints, self.warn = checkpoints, warn
        self.finding: Finding | None = None
        """Divergence at the last step."""
        self.said = ""
        """The same, with what is done about it."""
        self._rewinds: Counter[int] = Counter()
        self._origins: dict[int, int] = {}

    @property
    def rewinds(self) -> bool:
        """True if the last step is to be rewound from."""
        return self.finding is not None and self.act == "rewind"

    def accept(self, step: int, total_step: int, result: StepResult) -> bool:
        """Decides if a step, counted from 0 in its stage and from 1 in the run, may update the model.

        Raises: DivergedError where training is to stop.
        """
        found = self.checkpoints.world.gather(self.monitor.see(step, result.loss, result.grad_norm))[0]
        self.finding, self.said = found, ""
        if not found:
            return True
        act: str = self.act
        if act == "stop":
            raise DivergedError(
                f"step {total_step} looks like divergence ({found.said}), and divergence.act is stop; the state before"
                " it is saved: set divergence.act to report or rewind, or lower the learning rate in another folder"
            )
        if act == "skip" and found.since is not None:
            act = "report"
        if act == "skip" and self.monitor.spikes > MOST_SKIPS:
            raise DivergedError(
                f"step {total_step} would be skipped after {MOST_SKIPS} others in a row ({found.said}): no spike, but"
                " what training now gives; the state before it is saved: set divergence.act to report or rewind, or"
                " lower the learning rate in another folder"
            )
        done = {"report": "learned all the same", "skip": "skipped", "rewind": "going back"}[act]
        self.said = f"{found.said}: {done}"
        self.warn(f"step {total_step}: {self.said}")
        return act == "report"

    def rewind(self, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Restore the last checkpoint of the stage, or the last before a rise (else the oldest); data continue.

        progress: before the step that is rewound from.
        Raises: DivergedError if there is no checkpoint to restore, or after `MOST_REWINDS` to the same weights.
        """
        assert self.finding is not None
        since = self.finding.since
        self.checkpoints.finish()
        kept = [(read_progress(path), path) for path in self.checkpoints.paths()]
        kept = [(at, path) for at, path in kept if at.stage == progress.stage]
        if not kept:
            raise DivergedError("there is no checkpoint of this stage to go back to: see what was said when it was due")
        at, path = next((pair for pair in reversed(kept) if since is None or pair[0].step <= since), kept[0])
        origin = self._origins.get(at.total_step, at.total_step)
        self._origins[progress.total_step + 1] = origin  # the next checkpoint holds the same weights
        self._rewinds[origin] += 1
        if self._rewinds[origin] > MOST_REWINDS:
            raise DivergedError(
                f"went back to the weights of step {origin} {MOST_REWINDS} times, and every time training diverged"
                " again: lower the learning rate, or freeze more of the model or adapt it by lora"
            )
        restore(path, model, optimiser if at.step else None)
        if not at.step:
            optimiser.state.clear()


def _noise(losses: Iterable[float]) -> float:
    """The deviation of losses from one step to the next, which a trend hardly changes."""
    return fmean((later - earlier) ** 2 / 2 for earlier, later in pairwise(losses)) ** 0.5
