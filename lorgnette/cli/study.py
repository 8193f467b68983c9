"""`lorgnette study`: list, show, run, report and begin studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.advice import AdvisedGroup

study = typer.Typer(
    cls=AdvisedGroup, help="Answer questions of design: train cells that differ in declared settings, and judge claims."
)
Name = Annotated[str, typer.Argument(help="Study, by name or path.")]
Scale = Annotated[str, typer.Option(help="Size at which the study runs: one of its `scales`.")]
StudiesFolder = Annotated[Path, typer.Option(help="Folder of runs and rows, shared by all studies.")]
_FOLDER = Path("runs/studies")


@study.command(name="list")
def list_(folder: StudiesFolder = _FOLDER) -> None:
    """List the studies that lorgnette carries, and how many of their rows are measured."""
    from lorgnette.output import new_console
    from lorgnette.study.summary_tables import print_studies

    print_studies(folder, new_console())


@study.command()
def show(name: Name, scale: Scale = "micro") -> None:
    """Show a study: its cells and how they differ, the paper's numbers, and the claims that it will decide."""
    from lorgnette.output import new_console
    from lorgnette.study.config import load_study
    from lorgnette.study.summary_tables import print_study

    print_study(load_study(name), scale, new_console())


@study.command()
def run(
    name: Name,
    scale: Scale = "micro",
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of each cell, instead of the study's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells that are computed side by side on this machine.")] = 1,
    ray: Annotated[str, typer.Option(help="Address of a Ray cluster whose machines share the folder.")] = "",
    commands: Annotated[bool, typer.Option("--commands", help="Print a command for each missing cell.")] = False,
    cell: Annotated[str | None, typer.Option(help="Compute this cell only.")] = None,
    seed: Annotated[int | None, typer.Option(min=1, help="Compute this seed only.")] = None,
    halving: Annotated[
        bool, typer.Option("--halving", help="Stop the worse half at 1/4 and at 1/2 of the steps, by held-out loss.")
    ] = False,
    share: Annotated[float, typer.Option(min=0, max=1, hidden=True)] = 1.0,
    again: Annotated[bool, typer.Option("--again", help="Measure again what lorgnette carries rows of.")] = False,
    folder: StudiesFolder = _FOLDER,
) -> None:
    """Compute the rows of a study that are missing. The same command resumes after a kill at any point."""
    import os

    from lorgnette.errors import SettingsError
    from lorgnette.output import new_console
    from lorgnette.study.config import load_study
    from lorgnette.study.result_rows import RowStore

    found = load_study(name)
    if halving and (cell or seed or commands or ray):
        raise SettingsError("--halving chooses the cells itself; leave out --cell, --seed, --commands and --ray")
    if cell is not None:
        found.cell(cell)  # refuses an unknown one
    from lorgnette.study.cells import jobs_of
    from lorgnette.study.halving import run_halved
    from lorgnette.study.run_cells import run_study

    store = RowStore(folder, shipped=not again)
    if halving:
        run_halved(found, name, scale, store, new_console(), seeds=seeds, at_once=jobs)
        return
    every = jobs_of(found, name, scale, max(seeds or 0, seed) if seed is not None else seeds, share)
    chosen = [job for job in every if cell in (None, job.cell.name) and seed in (None, job.seed)]
    if commands:
        there = store.read([job.key for job in chosen])
        print(*(job.command(folder) for job in chosen if job.key not in there), sep="\n")
        return
    run_study(chosen, store, new_console(quiet=os.environ.get("RANK", "0") != "0"), at_once=jobs, ray=ray)


@study.command()
def report(name: Name, scale: Scale = "micro", folder: StudiesFolder = _FOLDER) -> None:
    """Judge the claims of a study, and write NAME-SCALE.html and NAME-SCALE.md to its folder."""
    from lorgnette.output import new_console, say
    from lorgnette.study.config import load_study
    from lorgnette.study.halving import stopped_early
    from lorgnette.study.result_rows import RowStore
    from lorgnette.study.study_page import study_report, write_study_report

    found, store = load_study(name), RowStore(folder)
    judged, seeds = study_report(found, name, scale, store)
    console = new_console()
    written = write_study_report(judged, folder)
    for verdict in judged.verdicts:
        needs = f"; would be decided by {verdict.needs}" if verdict.needs else ""
        value = "not measured" if verdict.found is None else str(verdict.found)
        say(console, f"{verdict.word}: {verdict.claim.sentence}: {value}{needs}")
    for mark in [*judged.marks, *stopped_early(found, name, scale, store, seeds)]:
        say(console, f"note: {mark}")
    say(console, f"Wrote {written[0]} and {written[1].name}")


@study.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new study; NAME.yaml is written here.")],
    from_: Annotated[str, typer.Option("--from", help="Study to start from, by name or path.")] = "t3",
) -> None:
    """Begin a study of your own from another one's file."""
    from lorgnette.study.config import begin_study

    print(f"Wrote {begin_study(name, from_)}. Look at it: lorgnette study show {name}.yaml")
