"""Successive halving: all cells get a share of the budget, the better half of them twice as much, and so on.

A shorter run is not the beginning of a longer one (its schedule ends earlier, its warm-up is a larger part of it), so
each share is trained from its start. The cells that are stopped have no row at the whole budget, and claims about them
stay undecided: halving finds a good cell cheaply, and favours what learns fast.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.output import say
from lorgnette.study.cells import CellJob, jobs_of
from lorgnette.study.config import Study
from lorgnette.study.estimates import estimate_of
from lorgnette.study.result_rows import RowStore, StudyRow
from lorgnette.study.run_cells import run_study
from lorgnette.study.verdicts import measured_rows

BUDGET_SHARES = (0.25, 0.5, 1.0)
"""Shares of each stage's steps at which cells are compared; all that are left run the last."""
BIAS = (
    "successive halving favours cells that learn fast: one that would win at the whole budget may have been stopped,"
    " and claims about stopped cells stay undecided"
)


def run_halved(
    study: Study,
    where: str,
    scale: str,
    store: RowStore,
    console: Console,
    by: str = "loss",
    seeds: int | None = None,
    at_once: int = 1,
) -> list[str]:
    """Run a study by successive halving; return the names of the cells that ran the whole budget.

    The same call resumes, as `run_study` does.

    by: the measure that compares cells: `loss` (less is better), `score`, or another that a claim may name.
    Raises: SettingsError for an unknown measure, or where no cell of a share could be measured; as `run_study`.
    """
    say(console, f"note: {BIAS}")
    left = [cell.name for cell in study.cells]
    for share in BUDGET_SHARES:
        jobs = [job for job in jobs_of(study, where, scale, seeds, share) if job.cell.name in left]
        run_study(jobs, store, console, at_once=at_once)
        if share < 1:
            stopped = _worse(jobs, store, by)
            left = [name for name in left if name not in stopped]
            say(console, f"at {share:g} of the steps: going on with {', '.join(left)}; {_words(stopped)}")
    return left


def _worse(jobs: Sequence[CellJob], store: RowStore, by: str) -> dict[str, float]:
    """The cells that are stopped: the worse half, rounded down, and those whose training diverged."""
    names = list(dict.fromkeys(job.cell.name for job in jobs))
    values = _values(store.named({job.key: job.cell.name for job in jobs}), by)
    if not values:
        raise SettingsError("no cell could be measured, all diverged; there is nothing to compare")
    ranked = sorted(values, key=values.__getitem__, reverse=not by.startswith("loss"))
    kept = ranked[: -(-len(names) // 2)]
    return {name: values.get(name, float("nan")) for name in names if name not in kept}


def _values(rows: Sequence[StudyRow], by: str) -> dict[str, float]:
    by_cell = measured_rows(row for row in rows if not row.failed)
    return {name: estimate_of(found, by).value for name, found in by_cell.items()}


def _words(stopped: dict[str, float]) -> str:
    return "stopped: " + (", ".join(f"{name} ({value:.4g})" for name, value in stopped.items()) or "none")


def stopped_early(study: Study, where: str, scale: str, store: RowStore, seeds: int) -> list[str]:
    """Sentences about cells that have rows at a share of the budget and none at the whole of it."""
    if not any(row.scale.startswith(f"{scale} x ") for row in store.read().values()):
        return []  # without the keys of three budgets
    whole = {job.key: job.cell.name for job in jobs_of(study, where, scale, seeds)}
    there = {row.cell for row in store.named(whole)}
    said = []
    for share in BUDGET_SHARES[:-1]:
        keys = {job.key: job.cell.name for job in jobs_of(study, where, scale, seeds, share)}
        rows = [row for row in store.named(keys) if row.cell not in there and not row.failed]
        for name, value in _values(rows, "loss").items():
            said.append(f"{name}: stopped at {share:g} of the steps (held-out loss {value:.3f})")
    return [*said, BIAS] if said else []
