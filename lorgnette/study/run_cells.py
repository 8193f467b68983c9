"""Runs what is missing of a study: one cell after another, side by side as processes, or as tasks of a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console

from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.output import new_console, say
from lorgnette.study.cells import CellJob, compute, step_costs
from lorgnette.study.config import Study
from lorgnette.study.result_rows import RowStore, StudyRow
from lorgnette.train.loop import Interrupted
from lorgnette.train.planner.dry_run import first_packs, measure
from lorgnette.train.setup import build, resolve
from lorgnette.train.stages import prepare_parts

Outcome = tuple[CellJob, str]
"""A job that has ended, and the reason why it failed; empty where its row is stored."""


def run_study(jobs: Sequence[CellJob], store: RowStore, console: Console, *, at_once: int = 1, ray: str = "") -> None:
    """Compute the rows that are missing of some jobs. Rows of any version of the code count; the report marks them.

    at_once: processes on this machine. ray: address of a cluster, whose machines share the store's folder.
    Raises: LorgnetteError naming the cells that failed, once all others are done; Interrupted if asked to stop.
    """
    there, folder = store.read([job.key for job in jobs]), store.folder
    waiting = [job for job in jobs if job.key not in there]
    say(console, f"{len(jobs)} cells, {len(jobs) - len(waiting)} of them measured before")
    if not waiting:
        return
    if len(waiting) > 1:  # one cell is a process of many, or rank of many, and begins at once
        announce(waiting, list(there.values()), console)
    if ray:
        outcomes = _on_ray(waiting, folder, ray, store)
    elif len(waiting) > 1:
        outcomes = _as_processes(waiting, folder, at_once)
    else:
        outcomes = _here(waiting[0], folder, console, store)
    failures, started = [], time.monotonic()
    for done, (job, failure) in enumerate(outcomes, start=1):
        left = len(waiting) - done
        each = (time.monotonic() - started) / done
        row = store.read([job.key]).get(job.key)
        said = f"failed: {failure}" if failure or row is None else _summary(row)
        say(console, f"{done} of {len(waiting)}: {job.title}: {said}; {left} left, about {each * left / 60:.0f} min")
        failures += [f"{job.title} ({failure})"] if failure else []
    if failures:
        raise LorgnetteError(
            f"{len(failures)} of {len(waiting)} cells failed, the same command tries again: {failures[0]}"
        )


def _summary(row: StudyRow) -> str:
    """Result of a cell in a phrase."""
    if row.failed:
        return f"training diverged ({row.failed})"
    score = fmean(100 * fmean(task.scores) for task in row.tasks.values())
    blind = fmean(100 * fmean(task.blind) for task in row.tasks.values())
    loss = fmean(row.loss.values())
    return f"score {score:.1f}, image-shuffled {blind:.1f}, held-out loss {loss:.3f}"


def announce(jobs: Sequence[CellJob], there: Sequence[StudyRow], console: Console) -> None:
    """Print what the jobs will cost: the planner's FLOPs, and time at the rate of earlier rows, or of two steps."""
    say(console, f"{len(jobs)} to compute; estimating their cost (data are prepared first)")
    by_cell = {job.cell.name: job for job in jobs}
    flops = {}
    for name, job in by_cell.items():
        costs = zip(job.run.stages, step_costs(job.run, "flops"), strict=True)
        flops[name] = sum(stage.steps * cost for stage, cost in costs)
    here = [row for row in there if row.cost.get("flops") and not row.failed]
    rate = median(row.cost["seconds"] / row.cost["flops"] for row in here) if here else _rate(jobs[0])
    total = sum(flops[job.cell.name] for job in jobs)
    for name, count in flops.items():
        say(console, f"  {name}: {count:.2e} FLOPs, about {count * rate / 60:.1f} min of training a seed")
    minutes = f"about {total * rate / 60:.0f} min one after another, and the questions" if rate else "time unknown"
    say(console, f"all: {total:.2e} FLOPs of training, {minutes}")


def _rate(job: CellJob) -> float:
    """Seconds for each FLOP, of two steps of a job's last stage; 0 where its data are not here."""
    run = resolve(job.run)
    number, stage = len(run.stages) - 1, run.stages[-1]
    glance = first_packs(run, number)
    if glance.steps is None:
        return 0.0
    torch.set_num_threads(run.threads or torch.get_num_threads())
    model, _ = build(run)
    prepare_parts(model, stage, seed=run.seed)
    _, seconds, _ = measure(run, stage, model, glance.steps)
    return seconds / glance.cost(run, stage).flops


def _here(job: CellJob, folder: Path, console: Console, store: RowStore) -> Iterator[Outcome]:
    say(console, f"{job.title}", style="bold")
    row, failure = tried(job, folder, console)
    if row is not None:
        store.add(row)
    yield job, failure


def tried(job: CellJob, folder: Path, console: Console) -> tuple[StudyRow | None, str]:
    """The row of a job, or the message of its failure. Raises: Interrupted, which ends all cells."""
    try:
        return compute(job, folder, console), ""
    except Interrupted:
        raise
    except LorgnetteError as error:
        return None, str(error)


def _as_processes(jobs: Sequence[CellJob], folder: Path, at_once: int) -> Iterator[Outcome]:
    """Each job as a process of its own, with memory of its own. Side by side, they print to `output/KEY.txt`."""
    processes: list[subprocess.Popen[bytes]] = []

    def work(job: CellJob) -> str:
        path = folder / "output" / f"{job.key}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "lorgnette.cli", "study", "run", job.where, "--scale", job.scale]
        words += ["--cell", job.cell.name, "--seed", str(job.seed), "--folder", str(folder), "--again"]
        words += ["--share", str(job.share)]
        with path.open("wb") as output:
            streams: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT} if at_once > 1 else {}
            process = subprocess.Popen(words, **streams)
            processes.append(process)
            status = process.wait()
        return f"exit status {status}, see {path if at_once > 1 else 'above'}" if status else ""

    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:  # Ctrl-C and the like: no other cell is begun, and those that run save and stop
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def _on_ray(jobs: Sequence[CellJob], folder: Path, address: str, store: RowStore) -> Iterator[Outcome]:
    """Each job as a task of a cluster; rows come back here and are stored. A task that dies is tried again."""
    if importlib.util.find_spec("ray") is None:
        raise SettingsError(f"--ray {address}: the package ray is not installed here: `pip install ray`")
    ray: Any = importlib.import_module("ray")
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(max_retries=3)(compute_elsewhere)
    waiting = {}
    for job in jobs:
        task = remote.options(num_cpus=job.run.threads or 1)
        values = (job.study.plain(), job.scale, job.cell.name, job.seed, job.where, str(folder.absolute()), job.share)
        waiting[task.remote(*values)] = job
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(ready)
        row, failure = ray.get(ready)
        if row is not None:
            store.add(row)
        yield job, failure


def compute_elsewhere(
    study: dict[str, Any], scale: str, cell: str, seed: int, where: str, folder: str, share: float = 1.0
) -> tuple[StudyRow | None, str]:
    """A job as a task of a cluster: its row, or the message of its failure."""
    parsed = Study.parse(study, where)
    job = CellJob(parsed, scale, parsed.cell(cell), seed, where, share)
    return tried(job, Path(folder), new_console(quiet=True))
