"""`lorgnette train`, and its options that do not train: cost estimate, plot, replay; opening models for export."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorgnette.cli.arguments import check_run, is_unfinished
from lorgnette.errors import SettingsError
from lorgnette.output import new_console, say
from lorgnette.run import Run
from lorgnette.untrusted import quoted

if TYPE_CHECKING:
    from lorgnette.inputs.processor import Processor
    from lorgnette.model.vlm import VLM


def train(run: Run, folder: Path | None, hours: float | None, log: Sequence[str], changed_data: bool = False) -> None:
    """Train all stages, and write the model to FOLDER/model; runs/NAME where no folder is given."""
    if folder is None and Path(run.name).name != run.name:
        raise SettingsError(f"name: {quoted(run.name)!r} cannot name a folder; give one as --folder")
    check_run(run, log)
    from lorgnette.train import loop

    folder, console = folder or Path("runs") / run.name, new_console()
    limit = None if hours is None else hours * 3600
    loop.train(run, folder, console, limit_s=limit, trackers=log, changed_data=changed_data)
    if os.environ.get("RANK", "0") == "0":
        say(console, f"Trained. Talk to it: lorgnette chat --model {shlex.quote(str(folder))}")


def plan(run: Run) -> None:
    """Print the estimated cost of a run, and check it with two steps."""
    from lorgnette.train.planner.dry_run import dry_run

    dry_run(run, new_console())


def plot(folder: Path) -> Path:
    """Draw a run's loss, learning rate and speed to FOLDER/curves.svg. Raises: SettingsError if it has no log."""
    from lorgnette.files import replace_text
    from lorgnette.report.svg import is_own_drawing, standalone
    from lorgnette.report.training_curve import curve_from_log, training_curve
    from lorgnette.train.logging.log import read_log

    rows = [row for row in read_log(folder / "log.jsonl") if {"seconds", "samples", "loss", "lr"} <= row.keys()]
    if not rows:
        raise SettingsError(f"{folder}: has no log.jsonl with steps to draw; give the folder of a run")
    path = folder / "curves.svg"
    replace_text(path, standalone(training_curve(curve_from_log(rows))), is_own_drawing)
    return path


def replay(path: Path) -> None:
    """Recompute a kept step, and print the samples whose loss is not finite."""
    from lorgnette.train.checkpoint.debug_step import replay as compute

    console = new_console()
    broken = compute(path, console)
    said = f"not finite: {', '.join(broken)}" if broken else "every sample's loss is finite"
    say(console, said)


def open_model(model: str, dtype: str = "auto") -> tuple[VLM, Processor]:
    """Open a model as `lorgnette.hub.load.load` does, or the last checkpoint of an unfinished run, of float32."""
    if is_unfinished(model):
        from lorgnette.model.ops.device import dtype_named
        from lorgnette.train.checkpoint.resume import open_unfinished

        opened, processor = open_unfinished(Path(model))
        return opened.to(dtype_named(dtype)), processor
    from lorgnette.hub.load import load

    return load(model, dtype=dtype)
