"""`lorgnette.train`: train a run from Python, on its own sources or on data that the program holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lorgnette.data.in_memory import sources_of
from lorgnette.errors import SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.run import Run, open_run
from lorgnette.train import loop
from lorgnette.train.callbacks import Callback
from lorgnette.train.setup import build_processor
from lorgnette.untrusted import quoted


def train(
    run: Run | str | Path | Mapping[str, Any],
    data: Iterable[Any] | str | Path | None = None,
    *,
    folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    hours: float | None = None,
    console: Console | None = None,
) -> tuple[VLM, Processor]:
    """Train a run, and write its model to `folder/model`, as `lorgnette train` does; the same call resumes it.

    run: settings, a recipe by name or path, or settings as plain values.
    data: takes the place of the sources of every stage: a path or several, or rows (mappings in any form that a source
    reads, or `Sample`s) in a list, a `datasets.Dataset` or any iterable. Rows are written to `folder/data` first.
    folder: `runs/NAME` if not given. overrides: dotted settings, as on the command line.
    callbacks: told of every step, evaluation and checkpoint. hours: time after which training saves and stops.
    Returns the model, adapters merged, and its processor, as `lorgnette.load` does.
    Raises: SettingsError, DataError or CheckpointError in one sentence; Interrupted after `hours`, with all saved.
    """
    settings = _settings(run, overrides)
    place = Path(folder) if folder is not None else Path("runs") / settings.name
    if data is not None:
        sources = tuple(sources_of(data, None, place))
        stages = tuple(stage.model_copy(update={"sources": sources}) for stage in settings.stages)
        settings = settings.model_copy(update={"stages": stages})
    limit = None if hours is None else hours * 3600
    model = loop.train(settings, place, console, limit_s=limit, callbacks=callbacks)
    return model, build_processor(settings)


def _settings(run: Run | str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Run:
    if isinstance(run, Run):
        return run.override(*overrides) if overrides else run
    if isinstance(run, Mapping):
        settings = Run.parse(run, "run")
        return settings.override(*overrides) if overrides else settings
    if isinstance(run, str | Path):
        return open_run(run, overrides)
    raise SettingsError(f"run is a {quoted(type(run).__name__)}; give a Run, a recipe's name or path, or plain values")
