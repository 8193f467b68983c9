"""The watch for divergence: a step that stands out from those before it, or a loss that has risen (paper §3.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

from lorgnette.errors import LorgnetteError
from lorgnette.run import DivergenceConfig

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
    """A detected divergence, in words."""

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
        """Return whether the mean of a whole window is above an earlier one by more than noise can explain."""
        error = max(_noise(self._losses), LEAST_DEVIATION) * (1 / len(self._losses) + 1 / over) ** 0.5
        return mean - low > max(self.config.rise * low, RISE_ERRORS * error)


class DivergenceMonitor:
    """Judges the steps of a stage, one after the other. A pure function of what it was shown, so a log replays it."""

    def __init__(self, config: DivergenceConfig, warmup: int) -> None:
        self.config, self.warmup = config, warmup
        self._losses: deque[float] = deque(maxlen=config.window)
        self._norms: deque[float] = deque(maxlen=config.window)
        self._rise = Rise(config)
        self.spikes = 0
        """In a row, up to the last step seen."""

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See again the steps that a resumed stage has taken, from its log."""
        for row in rows:
            if {"step", "loss", "grad_norm"} <= row.keys():  # a log that was written to may lack some
                self.see(row["step"] - 1, row["loss"], row["grad_norm"])

    def see(self, step: int, loss: float, grad_norm: float) -> Finding | None:
        """Return what is wrong with a step, counted from 0 in its stage; None for an ordinary one.

        Spikes are compared with steps after the warm-up that were learned; rises are looked for in all others.
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
        """Return the spike of a step; None also while too few steps are known."""
        if len(self._losses) < max(4, self.config.window // 2):
            return None
        mean, usual = fmean(self._losses), median(self._norms)
        deviation = max(pstdev(self._losses), LEAST_DEVIATION)
        if loss > mean + self.config.loss * deviation:
            return f"loss {loss:.3f} after {mean:.3f} (deviation {deviation:.3f}) over {len(self._losses)} steps"
        if usual and grad_norm > self.config.grad_norm * usual:
            return f"gradient norm {grad_norm:.3g} after {usual:.3g} over {len(self._norms)} steps"
        return None


def _noise(losses: Iterable[float]) -> float:
    """The deviation of losses from one step to the next, which a trend hardly changes."""
    return fmean((later - earlier) ** 2 / 2 for earlier, later in pairwise(losses)) ** 0.5
