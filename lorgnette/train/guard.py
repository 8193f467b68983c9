"""The watch for divergence: a step whose loss or gradient stands out from those before it (paper §3.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean, median, pstdev
from typing import Any

from lorgnette.errors import LorgnetteError
from lorgnette.run import SpikeConfig

LEAST_DEVIATION = 0.02
"""Nats. A loss that has become nearly constant may still move by this many times `SpikeConfig.loss`."""
MOST_REWINDS = 3
"""Times that a run goes back to one checkpoint before it gives up."""


class DivergedError(LorgnetteError):
    """Training diverged, and the settings say to stop; the parameters were not touched by the last step."""


class Guard:
    """Remembers the last steps of a stage and says when one stands out. A pure function of what it was shown."""

    def __init__(self, config: SpikeConfig, warmup: int) -> None:
        self.config, self.warmup = config, warmup
        self._losses: deque[float] = deque(maxlen=config.window)
        self._norms: deque[float] = deque(maxlen=config.window)

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See again the steps that a resumed stage has taken, from its log."""
        for row in rows:
            if not row.get("spike") or self.config.act == "report":
                self.remember(row["step"] - 1, row["loss"], row["grad_norm"])

    def remember(self, step: int, loss: float, grad_norm: float) -> None:
        """A step that was learned. step: counted from 0 in its stage; steps of the warm-up are not compared with."""
        if step >= self.warmup:
            self._losses.append(loss)
            self._norms.append(grad_norm)

    def judge(self, loss: float, grad_norm: float) -> str | None:
        """What stands out about a step, in words; None for an ordinary one, or while too few steps are known."""
        if len(self._losses) < max(4, self.config.window // 2):
            return None
        mean, usual = fmean(self._losses), median(self._norms)
        deviation = max(pstdev(self._losses), LEAST_DEVIATION)
        if loss > mean + self.config.loss * deviation:
            return f"loss {loss:.3f} after {mean:.3f} (deviation {deviation:.3f}) over {len(self._losses)} steps"
        if usual and grad_norm > self.config.grad_norm * usual:
            return f"gradient norm {grad_norm:.3g} after {usual:.3g} over {len(self._norms)} steps"
        return None
