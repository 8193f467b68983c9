"""One cell at one seed: its run within the budget, its key, and its row, computed once and resumed after a kill."""

from __future__ import annotations

import dataclasses
import datetime
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lorgnette.demo.demo import conditions, peak_gib
from lorgnette.files import hold
from lorgnette.hub.load import load
from lorgnette.run import CHANGEABLE, Run
from lorgnette.study.config import BudgetUnit, Study, StudyCell, StudyScale
from lorgnette.study.measures import (
    heldout_losses,
    loss_curve,
    measure_tasks,
    measuring_digest,
    score_curve,
    training_cost,
)
from lorgnette.study.result_rows import StudyRow
from lorgnette.train import loop
from lorgnette.train.divergence import DivergedError
from lorgnette.train.logging.log import read_log
from lorgnette.train.planner.dry_run import first_packs
from lorgnette.train.setup import resolve
from lorgnette.train.step import NotFiniteError

SAMPLED = 4
"""Steps of a stage by which its cost is estimated."""


@dataclass(frozen=True)
class CellJob:
    """A cell at a seed, as it is trained and measured."""

    study: Study
    scale: str
    cell: StudyCell
    seed: int
    where: str
    """Name or path of the study, for commands."""
    share: float = 1.0
    """Share of each stage's steps that it trains; less than all in successive halving."""

    @property
    def measured(self) -> StudyScale:
        return self.study.scale(self.scale)

    @cached_property
    def run(self) -> Run:
        """The run, with the steps that its budget gives it. Raises: SettingsError."""
        run, unit = self.study.run(self.scale, self.cell, self.seed), self.study.budget
        if every := self.measured.curve_every:
            run = with_curve(run, self.measured, every)
        steps = [stage.steps for stage in run.stages]
        if unit != "steps":
            wanted = budget_of(self.study.run(self.scale, self.study.cells[0], 1), unit)
            one = self.study.run(self.scale, self.cell, 1)  # of seed 1: all seeds take as many steps
            costs = step_costs(one, unit)
            steps = [max(1, round(spend / cost)) for spend, cost in zip(wanted, costs, strict=True)]
        steps = [max(1, round(self.share * count)) for count in steps]
        if steps == [stage.steps for stage in run.stages]:
            return run
        return run.override(*(f"stages.{number}.steps={count}" for number, count in enumerate(steps)))

    @cached_property
    def key(self) -> str:
        """Name of the measurement; see `StudyRow.key`."""
        return f"{self.run.identity}-{measuring_digest(self.measured, self.run, self.cell.split)}"

    @property
    def place(self) -> str:
        """Name of the folder that it is trained in: runs that are measured on the way have one of their own."""
        every = self.measured.curve_every
        return f"{self.run.identity}-every-{every}" if every else self.run.identity

    def command(self, folder: Path) -> str:
        """The command that computes this cell alone."""
        place = shlex.quote(str(folder))
        which = f"--scale {self.scale} --cell {self.cell.name} --seed {self.seed} --folder {place}"
        share = f" --share {self.share:g}" if self.share < 1 else ""
        return f"lorgnette study run {shlex.quote(self.where)} {which}{share}"

    @property
    def scale_name(self) -> str:
        """Scale of its row, with the share of the budget where that is not all."""
        return self.scale if self.share == 1 else f"{self.scale} x {self.share:g}"

    @property
    def title(self) -> str:
        share = f", {self.share:g} of the steps" if self.share < 1 else ""
        return f"{self.cell.name}, seed {self.seed}{share}"


def with_curve(run: Run, scale: StudyScale, every: int) -> Run:
    """A run that is measured after every so many steps; it learns what the same run learns without."""
    asked = {"every": every, "tasks": scale.tasks, "questions": scale.curve_questions, "keep_best": False}
    evaluation = run.evaluation.model_copy(update=asked)
    validation = run.validation.model_copy(update={"every": every, "samples": scale.heldout})
    return run.model_copy(update={"evaluation": evaluation, "validation": validation})


def jobs_of(study: Study, where: str, scale: str, seeds: int | None = None, share: float = 1.0) -> list[CellJob]:
    """All cells at seed 1, then all at seed 2: whenever it is stopped, cells have been seen alike.

    share: of each stage's steps.

    Raises: SettingsError as `Study.check`.
    """
    study.check(scale)
    count = study.scale(scale).seeds if seeds is None else seeds
    return [CellJob(study, scale, cell, seed, where, share) for seed in range(1, count + 1) for cell in study.cells]


def budget_of(run: Run, unit: BudgetUnit) -> list[float]:
    """Units that each stage of a run spends, as estimated."""
    return [stage.steps * cost for stage, cost in zip(run.stages, step_costs(run, unit), strict=True)]


def step_costs(run: Run, unit: BudgetUnit) -> Iterator[float]:
    """Units of one step of each stage, estimated by `SAMPLED` steps of its plan."""
    run = resolve(run)
    for number, stage in enumerate(run.stages):
        yield 1.0 if unit == "steps" else getattr(first_packs(run, number, SAMPLED).cost(run, stage), unit)


def compute(job: CellJob, folder: Path, console: Console) -> StudyRow | None:
    """Train and measure a cell. The same call resumes after a kill, in training as in measuring.

    folder: of the studies; the cell's own is `cells/RUN`, shared by all studies that have the same run. Under torchrun
        all ranks train, and rank 0 alone measures; the others get None.
    Raises: LorgnetteError if another process computes it; all that training and measuring raise, but divergence, which
        is a result.
    """
    place, run = folder / "cells" / job.place, resolve(job.run)
    if os.environ.get("RANK", "0") != "0":
        if not (place / "model").is_dir():
            loop.train(job.run, place, console)
        return None
    release = hold(place / ".cell.lock", f"{place}: another process computes this cell; let it end")
    try:
        failed = ""
        if not (place / "model").is_dir():
            try:
                loop.train(job.run, place, console)
            except (DivergedError, NotFiniteError) as error:
                failed = str(error)
        row = _row(job, place, run, failed, folder)
        for name in ("checkpoints", "adapters", "replay", "evaluation"):  # large, and of no use once all is measured
            shutil.rmtree(place / name, ignore_errors=True)
        return row
    finally:
        release()


def _row(job: CellJob, place: Path, run: Run, failed: str, folder: Path) -> StudyRow:
    log = read_log(place / "log.jsonl")
    measured: dict[str, Any] = {}
    torch.set_num_threads(run.threads or torch.get_num_threads())  # also where training ended before a kill
    if not failed:
        model, processor = load(place / "model")
        eval_folder = place / "eval" / job.key.rpartition("-")[2]
        if job.cell.split is not None:
            images = processor.images.override(f"split={str(job.cell.split).lower()}")
            processor = dataclasses.replace(processor, images=images)
        measured = {
            "tasks": measure_tasks(model, processor, run.identity, job.measured, eval_folder),
            "loss": heldout_losses(model, processor, run, job.measured.heldout, shuffled=False),
            "loss_shuffled": heldout_losses(model, processor, run, job.measured.heldout, shuffled=True),
        }
    return StudyRow(
        key=job.key,
        study=job.study.name,
        study_digest=job.study.digest(),
        scale=job.scale_name,
        cell=job.cell.name,
        seed=job.seed,
        settings={name: value for name, value in job.run.plain().items() if name not in CHANGEABLE},
        conditions=conditions() | {"command": job.command(folder)},
        ended=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        cost=training_cost(run, log) | {"peak_gib": peak_gib(run.loader.workers) or 0.0},  # 0: the system does not say
        failed=failed,
        curve=loss_curve(log),
        score_curve=score_curve(place, log) if job.measured.curve_every else [],
        **measured,
    )
