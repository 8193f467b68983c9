"""Experiment trackers: TensorBoard, wandb and trackio, each where it is installed."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorgnette.run import Run
from lorgnette.train.callbacks import Callback, StepMetrics, TrainerState
from lorgnette.train.planner.requirements import TRACKER_NAMES, check_trackers


class Tracker(Callback):
    """Callback that sends metrics of steps and evaluations to an experiment tracker."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step, counted over all stages."""

    @abstractmethod
    def close(self) -> None:
        """Finish the record of the run."""

    def on_step_end(self, run: Run, state: TrainerState, metrics: StepMetrics) -> None:
        self.log(metrics.total_step, figures(metrics, state.step_seconds))

    def on_evaluation(self, run: Run, state: TrainerState, kind: str, values: Mapping[str, float]) -> None:
        self.log(state.progress.total_step, {f"{kind}/{key}": value for key, value in values.items()})

    def on_run_end(self, run: Run, state: TrainerState) -> None:
        self.close()


class TensorBoard(Tracker):
    """Event files in the run's folder, by torch's own writer."""

    def __init__(self, run: Run, folder: Path) -> None:
        tensorboard: Any = importlib.import_module("torch.utils.tensorboard")
        self._writer = tensorboard.SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("settings", f"```yaml\n{run.to_yaml()}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Logged(Tracker):
    """wandb's way to log, which trackio has too."""

    package = ""

    def __init__(self, run: Run, folder: Path) -> None:
        self._module: Any = importlib.import_module(self.package)
        self._module.init(project="lorgnette", name=run.name, config=run.plain(), **self._where(folder))

    def _where(self, folder: Path) -> dict[str, Any]:
        return {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


class Wandb(_Logged):
    package = "wandb"

    def _where(self, folder: Path) -> dict[str, Any]:
        return {"dir": str(folder), "resume": "allow", "id": f"{folder.name}-{folder.stat().st_ino}"}


class Trackio(_Logged):
    package = "trackio"

    def _where(self, folder: Path) -> dict[str, Any]:
        return {"resume": "allow"}


TRACKERS: dict[str, type[TensorBoard] | type[Wandb] | type[Trackio]] = dict(
    zip(TRACKER_NAMES, (TensorBoard, Wandb, Trackio), strict=True)
)


def open_trackers(names: Sequence[str], run: Run, folder: Path) -> list[Tracker]:
    """Raises: SettingsError for a name that is unknown, or whose package is not installed."""
    check_trackers(names)
    folder.mkdir(parents=True, exist_ok=True)
    return [TRACKERS[name](run, folder) for name in names]


def figures(row: StepMetrics, seconds: float) -> dict[str, float]:
    """Metrics that trackers draw of a step that took `seconds`."""
    values = {
        "loss": row.loss,
        "learning_rate": row.lr,
        "gradient_norm": row.grad_norm,
        "supervised_tokens_per_second": row.supervised_tokens / seconds,
        "images_per_second": row.images / seconds,
        "waited_seconds": row.waited,
    }
    return values | {f"loss/{source}": loss for source, loss in row.sources.items()}
