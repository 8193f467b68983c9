"""`TuneOptions`: options of a tuning. Nothing here needs torch: they are checked before it loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorgnette.errors import SettingsError
from lorgnette.eval.metrics import metric_named
from lorgnette.train.callbacks import Callback

HELD_OUT_SHARE = 0.1
"""Share of the rows that is held out."""


@dataclass(frozen=True)
class TuneOptions:
    """Options of a tuning, besides the model and the data."""

    out: Path | None = None
    """Folder of the run; `runs/MODEL-DATA` if not given."""
    kind: str | None = None
    """Kind of all files; detected for each if not given."""
    metric: str | None = None
    """Metric of the answers; chosen by their look if not given."""
    steps: int | None = None
    hours: float | None = None
    """Time after which training saves and stops; the same call resumes it."""
    hold_out: float = HELD_OUT_SHARE
    overrides: Sequence[str] = ()
    """Dotted settings of the recipe, as `stages.tune.lr=1e-4`."""
    callbacks: Sequence[Callback] = field(default=())

    def check(self) -> None:
        """Raises: SettingsError for a share that leaves nothing on one side, or an unknown metric."""
        if not 0 < self.hold_out <= 0.5:
            raise SettingsError(f"--hold-out is {self.hold_out}; give a share of the rows between 0 and 0.5, as 0.1")
        if self.metric is not None:
            metric_named(self.metric)
