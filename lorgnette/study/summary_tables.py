"""Tables for the terminal: the studies that there are, and one study with its cells and claims."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.output import say
from lorgnette.study.cells import jobs_of
from lorgnette.study.config import Study, StudyCell, load_study, shipped_studies
from lorgnette.study.result_rows import RowStore


def print_studies(folder: Path, console: Console) -> None:
    """Print each study: its question, its place in the paper, its cells and seeds, and the rows that are measured.

    A row that studies share counts for each of them.
    """
    table = Table("study", "question", "paper", "scale", "cells x seeds", "rows")
    asked = [
        (study, name, {job.key for job in jobs_of(study, str(path), name)})
        for path in shipped_studies()
        for study in (load_study(str(path)),)
        for name in study.scales
    ]
    there = RowStore(folder).read({key for *_, keys in asked for key in keys})
    for study, name, keys in asked:
        sizes = f"{len(study.cells)} x {study.scale(name).seeds}"
        rows = f"{len(keys & there.keys())} of {len(keys)}"
        table.add_row(*map(Text, (study.name, study.question, study.source, name, sizes, rows)))
    console.print(table)


def print_study(study: Study, scale: str, console: Console) -> None:
    """Print the cells of a study and how they differ from the base, and its claims. Raises: as `Study.check`."""
    study.check(scale)
    chosen = study.scale(scale)
    say(console, f"{study.name}: {study.question}", style="bold")
    if study.about:
        say(console, study.about.strip())
    budget = study.budget.replace("_", " ")
    say(
        console,
        f"Base {chosen.base}; equal {budget}; seeds 1 to {chosen.seeds}; {chosen.questions} questions of each of"
        f" {', '.join(chosen.tasks)}; digest {study.digest()}",
    )
    table = Table("cell", "differs from the base in", "paper")
    for cell in study.cells:
        paper = "" if cell.paper is None else f"{cell.paper:g}"
        table.add_row(*map(Text, (cell.name, differences(study, scale, cell), paper)))
    console.print(table)
    for claim in study.claims:
        say(console, f"Claim: {claim.sentence} (level {claim.level:g})")


def differences(study: Study, scale: str, cell: StudyCell) -> str:
    """The changes of a cell as overrides; of the base itself, a word."""
    changes = study.changes(scale, cell)
    return " ".join(f"{key}={_plain(value)}" for key, value in changes.items()) or "nothing"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
