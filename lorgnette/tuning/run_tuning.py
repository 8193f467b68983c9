"""`tune`: train a model further on files of one's own, and measure it on rows that it never saw.

A thin layer over the rest: a recipe is made from the data, and trained by `Trainer`; held-out rows are asked about by
`evaluate` before training, after it, and after it with other pictures. If it is killed, the same command resumes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lorgnette.data.config import SourceConfig
from lorgnette.data.in_memory import sources_of
from lorgnette.errors import SettingsError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.results.rank_files import Rank
from lorgnette.eval.results.sighted import Asked
from lorgnette.eval.results.store import Result, ResultsFolder
from lorgnette.eval.row_questions import (
    LONGEST_ANSWER,
    Choice,
    choose_metric,
    survey,
    task_of_rows,
)
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.files import replace_text
from lorgnette.hub.card import model_card
from lorgnette.hub.export import save
from lorgnette.inputs.processor import Processor
from lorgnette.model.ops.device import AUTO
from lorgnette.output import new_console, progress_bar, say, shown_in
from lorgnette.run import Run
from lorgnette.train.logging.run_card import run_facts
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import DistributedContext, end_distributed, start_distributed
from lorgnette.train.planner.dry_run import dry_run
from lorgnette.train.setup import build_processor, resolve
from lorgnette.tuning.tune_data import TuneData, print_data, split_data
from lorgnette.tuning.tune_options import TuneOptions
from lorgnette.tuning.tune_page import TuneResults, card_section, print_results, write_page
from lorgnette.tuning.tune_recipe import is_recipe_file, recipe_text, stage_sizes, tune_recipe

ROOM = 8
"""Tokens that an answer may have beyond the longest reference."""


@dataclass(frozen=True)
class Tuning:
    """A tuning that is planned: its run, its data, and what the held-out rows are asked."""

    run: Run
    folder: Path
    data: TuneData
    task: Task
    choice: Choice
    sighted: bool
    """True if questions show pictures, so that they can be asked blind."""


def tune(
    model: str | Path,
    data: Iterable[Any] | str | Path,
    options: TuneOptions | None = None,
    console: Console | None = None,
) -> TuneResults:
    """Tune a model on files of data: `lorgnette tune`. The folder receives the recipe, the model, a card and a page.

    model: a folder of a model or run, or a hub id. data: a file, folder, glob or URL in any form that a source reads,
    or a list of them; or rows, as `lorgnette.train` takes them.
    Under torchrun every process calls it with the same arguments: they train together and share the questions, and the
    first holds rows out, prints and writes.
    Raises: SettingsError for data whose kind is not clear, or settings that do not fit; DataError if too little of it
    can be used; CheckpointError for the model; Interrupted after `hours`, with all saved.
    """
    try:
        return _tune(str(model), data, options or TuneOptions(), console)
    finally:
        end_distributed()


def _tune(model: str, data: Iterable[Any] | str | Path, options: TuneOptions, console: Console | None) -> TuneResults:
    options.check()
    started, world = time.perf_counter(), start_distributed(device_of(options.overrides))
    console = (console or new_console()) if world.is_main else new_console(quiet=True)
    plan = plan_in_turn(model, data, options, console, world)
    if world.size == 1 and not (plan.folder / "checkpoints").is_dir():
        say_cost(dry_run(plan.run, console), plan, console)
    limit = None if options.hours is None else options.hours * 3600
    trainer = Trainer(plan.run, plan.folder, console, limit_s=limit, callbacks=options.callbacks)
    spent = trainer.progress.seconds
    before = _measure("before", plan, trainer, console)
    trained = trainer.train()
    if world.is_main:
        save(trained, trainer.processor, plan.folder / "model")
    after = _measure("after", plan, trainer, console)
    blind = _measure("blind", plan, trainer, console) if plan.sighted else None
    asked = Asked(before, after, blind) if blind is not None else None
    seconds = spent + time.perf_counter() - started
    results = TuneResults(model, plan.folder, plan.data, plan.choice, before, after, asked, seconds, plan.run)
    with world.alike():
        if world.is_main:
            known = run_facts(trainer.run, plan.folder)
            facts = replace(known, sections=card_section(results) + known.sections)
            card = model_card(trained, plan.folder.resolve().name, facts)
            save(trained, trainer.processor, plan.folder / "model", card=card)
            write_page(results)
            print_results(console, results)
    return results


def plan_in_turn(
    model: str, data: Iterable[Any] | str | Path, options: TuneOptions, console: Console, world: DistributedContext
) -> Tuning:
    """As `plan_tuning`, on every rank: the first prepares and writes, and the others find the same then.

    Raises: as `plan_tuning`, on every rank alike.
    """
    plan: Tuning | None = None
    for turn in range(world.size):
        with world.alike():
            if world.rank == turn:
                plan = plan_tuning(model, data, options, console, world.size)
    assert plan is not None
    return plan


def device_of(overrides: Sequence[str]) -> str:
    """The setting `device` among overrides; `auto` where it is not given."""
    given = [one.partition("=")[2] for one in overrides if one.startswith("device=")]
    return given[-1] if given else AUTO


def plan_tuning(
    model: str, data: Iterable[Any] | str | Path, options: TuneOptions, console: Console, ranks: int = 1
) -> Tuning:
    """Read the data, hold rows out, and write `held_out.txt` and `recipe.yaml`. Nothing is trained.

    ranks: processes that will train together, among which the recipe shares its packs evenly.
    """
    options.check()
    folder = options.out or Path("runs") / _name_of(model, data)
    if isinstance(data, list | tuple) and not data:
        raise SettingsError("no data: give files, folders or globs, as in `lorgnette tune MODEL mine.jsonl`")
    configs = sources_of(data, options.kind, folder)
    resolved, processor = _model_settings(model, configs)
    found = split_data(configs, processor, folder, options.hold_out, console)
    print_data(console, found)
    indexes, rows = [one.index for one in found.prepared], sum(found.trained)
    sizes = stage_sizes(indexes, rows, resolved.model, processor, options.steps, ranks)
    values = tune_recipe(folder.name, model, found.sources("train"), found.sources("held_out"), sizes)
    path = folder / "recipe.yaml"
    replace_text(path, recipe_text(values, options.overrides), is_recipe_file)
    run = Run.load(path)
    samples = found.questions(processor, path)
    asked = survey(samples)
    kinds = [one.config.kind for one in found.prepared]
    choice = Choice(options.metric, "as asked for") if options.metric else choose_metric(kinds, asked.answers)
    longest = max(len(processor.tokenizer.encode(answer)) for answer in asked.answers)
    task = task_of_rows("held_out", samples, asked, choice.metric, min(LONGEST_ANSWER, longest + ROOM))
    many, unit = len(samples), "question" if len(samples) == 1 else "questions"
    say(console, f"Held out: {many:,} {unit}, measured by {choice.metric} ({choice.because}).")
    passes = run.steps * sizes["pack"].get("samples", 0) * sizes["pack"]["packs_per_step"] / rows
    shown = f", about {passes:.1f} passes over {rows:,} rows" if passes else ""
    say(console, f"Recipe: {path} ({run.steps:,} steps{shown}).")
    return Tuning(run, folder, found, task, choice, asked.has_images and found.pictures > 1)


def say_cost(seconds: float | None, plan: Tuning, console: Console) -> None:
    """Print how long training will take, from the measured time of a step."""
    if seconds is None:
        return
    whole = seconds * plan.run.steps
    said = (
        f"{whole / 3600:.1f} hours"
        if whole > 5400
        else f"{whole / 60:.0f} minutes"
        if whole > 90
        else f"{whole:.0f} seconds"
    )
    say(console, f"{plan.run.steps:,} steps will take about {said} on this machine, and the measuring comes on top.")


def _name_of(model: str, data: Any) -> str:
    """Name of a run after its model and its first file: `demo-receipts`."""
    parts = [part for part in model.replace("\\", "/").split("/") if part not in ("", ".", "..", "model")]
    first = data[0] if isinstance(data, list | tuple) and data else data
    stem = Path(str(first).rstrip("/")).name.partition(".")[0] if isinstance(first, str | Path) else ""
    words = "".join(char if char.isalnum() or char in "-_" else "-" for char in stem).strip("-")
    return f"{(parts or ['model'])[-1].partition('@')[0].replace(':', '-')}-{words or 'data'}"


def _model_settings(model: str, configs: Sequence[SourceConfig]) -> tuple[Run, Processor]:
    """The settings of the model that is tuned, and its processor, as training has them."""
    sources: list[Any] = [one.plain() for one in configs]
    draft = Run.parse(
        {"name": "draft", "init": {"model": model}, "stages": [{"name": "a", "sources": sources, "steps": 1}]}
    )
    resolved = resolve(draft)
    return resolved, build_processor(resolved)


def _measure(name: str, plan: Tuning, trainer: Trainer, console: Console) -> Result:
    """Ask the trainer's model about the held-out rows; kept in `eval/NAME`, and taken from there if done before."""
    world, model = trainer.world, trainer.model.to(trainer.world.device).eval()
    identity = f"{trainer.run.identity} {'before' if name == 'before' else 'after'}"
    answerer, bar = LorgnetteModel(model, trainer.processor, identity=identity), progress_bar(console)
    bar.disable = not console.is_terminal
    store = ResultsFolder(plan.folder / "eval" / name, Rank(world.rank, world.size))
    with world.alike(), bar:
        evaluate(plan.task, answerer, blind=name == "blind", folder=store, progress=shown_in(bar, f"measuring {name}"))
    with world.alike():  # all have answered, and the last may have stored the scores
        result = store.result()
    say(console, f"{name}: {result.overall} ({plan.choice.metric}, {result.count:,} held-out questions)")
    return result
