"""`lorgnette tune`: a model and files to a tuned model, measured on rows that it never saw."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.model_options import DeviceOption, check_words, training_settings

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)


def tune(
    model: Annotated[str, typer.Argument(help="Folder of a model or run, or a hub id.")],
    data: Annotated[
        list[str],
        typer.Argument(help="Files, folders or globs of data; and settings to change, as stages.tune.lr=1e-4."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/MODEL-DATA by default.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Kind of the files (chat, instruct, pairs, ...), if it is not clear from them.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of the answers; chosen by their look by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training; about 3 passes by default.")] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, help="Save a checkpoint and stop training after this time, with status 75.")
    ] = None,
    hold_out: Annotated[float, typer.Option(help="Share of the rows that is held out and asked about.")] = 0.1,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="Type that training computes in: float32 or bfloat16; auto by the device.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the recipe, and estimate memory and time; do not train.")
    ] = False,
) -> None:
    """Tune a model on your files, and measure it on rows that it never saw: before, after, and with other pictures.

    A tenth of the rows is held out, so that no picture is on both sides. The folder receives the recipe, the model with
    its card, and report.html. The same command resumes a stopped run.
    """
    from lorgnette.cli.arguments import check_data, find_model
    from lorgnette.output import new_console
    from lorgnette.tuning.tune_options import TuneOptions

    overrides = [one for one in data if _OVERRIDE.fullmatch(one) and not os.path.exists(one)]
    files = [one for one in data if one not in overrides]
    check_words(device, dtype)
    overrides += training_settings(device, dtype)
    options = TuneOptions(out, kind, metric, steps, hours, hold_out, overrides)
    options.check()
    find_model(model)
    check_data(files, kind)
    from lorgnette.tuning.run_tuning import plan_tuning, say_cost
    from lorgnette.tuning.run_tuning import tune as run_tuning

    console = new_console()
    if not dry_run:
        run_tuning(model, files, options, console)
        return
    from lorgnette.train.planner.dry_run import dry_run as estimate

    plan = plan_tuning(model, files, options, console)
    say_cost(estimate(plan.run, console), plan, console)
