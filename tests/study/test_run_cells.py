"""Running a study: what is missing is computed once, resumed after a kill, by processes or by tasks of a cluster."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import re
import signal
import subprocess
import sys
import types
from statistics import fmean

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.study import cells, run_cells
from lorgnette.study.cells import CellJob, budget_of, compute, jobs_of
from lorgnette.study.config import Study
from lorgnette.study.estimates import measured_number
from lorgnette.study.halving import run_halved, stopped_early
from lorgnette.study.result_rows import RowStore, TaskScores
from lorgnette.study.run_cells import announce, run_study
from lorgnette.train import loop
from tests.study.test_estimates import row as example_row

QUIET = Console(quiet=True)


def printed(jobs, store, **options) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    run_study(jobs, store, console, **options)
    return console.export_text()


def rows_of(store):
    """Rows without what depends on the clock and the command."""
    kept = {}
    for row in store.read().values():
        cost = {name: value for name, value in row.cost.items() if name not in ("seconds", "peak_gib")}
        kept[row.cell, row.seed] = (row.key, cost, row.tasks, row.loss, row.loss_shuffled, row.curve)
    return kept


def test_a_row_has_every_measure_and_names_what_made_it(measured, tiny_study):
    rows = list(measured.read().values())
    assert {(row.cell, row.seed) for row in rows} == {(c, s) for c in ("frozen", "trained") for s in (1,)}
    for row in rows:
        assert len(row.tasks["scene_vqa"].scores) == len(row.tasks["scene_vqa"].blind) == 4
        assert row.loss.keys() == row.loss_shuffled.keys() and all(value > 0 for value in row.loss.values())
        assert row.loss != row.loss_shuffled
        assert row.study_digest == tiny_study.digest()
        assert row.conditions.keys() >= {"device", "commit", "command", "threads"}
        assert f"--cell {row.cell} --seed {row.seed}" in row.conditions["command"]
    trained = {row.cell: row.cost["trained"] for row in rows}
    assert trained["trained"] > trained["frozen"] and {row.cost["steps"] for row in rows} == {2}


def test_what_is_measured_is_not_computed_again(measured, tiny_study, monkeypatch):
    monkeypatch.setattr(loop, "train", None)
    text = printed(jobs_of(tiny_study, "mine.yaml", "micro"), measured)
    assert "2 cells, 2 of them measured before" in text


def test_studies_share_equal_runs(measured, tiny_study):
    claims = [{"cell": "trained", "over": "frozen", "by": "score"}]
    other = Study.parse(tiny_study.plain() | {"name": "other", "claims": claims})
    assert other.digest() != tiny_study.digest()
    assert {job.key for job in jobs_of(other, "other.yaml", "micro")} == set(measured.read())
    more = tiny_study.scale("micro").plain() | {"questions": 5}
    asked = Study.parse(tiny_study.plain() | {"scales": {"micro": more}})
    assert {job.key for job in jobs_of(asked, "mine.yaml", "micro")}.isdisjoint(measured.read())


def test_what_is_left_is_said(measured):
    text = (measured.folder / "printed.txt").read_text(encoding="utf-8")
    assert "1 of 1: frozen, seed 1: score" in text and "0 left" in text


def test_the_cost_is_said_before_anything_starts(measured, tiny_study):
    console = Console(record=True, width=200, file=io.StringIO())
    rows = list(measured.read().values())
    announce(jobs_of(tiny_study, "mine.yaml", "micro", seeds=2), rows, console)
    text = console.export_text()
    said = [float(flops) for flops in re.findall(r"(?:frozen|trained): (\S+) FLOPs", text)]
    spent = [row.cost["flops"] for row in rows]
    whole = float(re.findall(r"all: (\S+) FLOPs of training", text)[0])
    assert said == pytest.approx(spent, rel=0.05) and whole == pytest.approx(2 * sum(said), rel=0.01)


CHILD = """
import sys
from pathlib import Path
from rich.console import Console
from lorgnette.study.cells import jobs_of, compute
from lorgnette.study.config import load_study
from lorgnette.study import measures
from lorgnette.train.callbacks import CallbackList
import os, signal

where, what, folder = sys.argv[1:]
if what == "training":
    plain = CallbackList.on_checkpoint
    def killed(self, run, state, path):
        plain(self, run, state, path)
        os.kill(os.getpid(), signal.SIGKILL)
    CallbackList.on_checkpoint = killed
else:
    plain_append = measures.evaluate.__globals__["ResultsFolder"].append
    def killed(self, examples, pictures):
        plain_append(self, examples, pictures)
        os.kill(os.getpid(), signal.SIGKILL)
    measures.evaluate.__globals__["ResultsFolder"].append = killed
compute(jobs_of(load_study(where), where, "micro")[0], Path(folder), Console(quiet=True))
"""


@pytest.mark.parametrize("moment", ["training", "measuring"])
def test_a_killed_cell_ends_as_if_it_had_not_been(moment, measured, tiny_study, tmp_path):
    where = tmp_path / "mine.yaml"
    where.write_text(yaml.safe_dump(tiny_study.plain()), encoding="utf-8")
    folder = tmp_path / "killed"
    child = subprocess.run([sys.executable, "-c", CHILD, str(where), moment, str(folder)], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    store = RowStore(folder, shipped=False)
    assert not store.read()
    run_study(jobs_of(tiny_study, str(where), "micro")[:1], store, QUIET)
    assert rows_of(store)["frozen", 1] == rows_of(measured)["frozen", 1]
    assert not list(folder.glob("cells/*/checkpoints"))


def test_cells_side_by_side_give_the_same_rows(measured, tiny_study, tmp_path):
    where = tmp_path / "mine.yaml"
    where.write_text(yaml.safe_dump(tiny_study.plain()), encoding="utf-8")
    store = RowStore(tmp_path / "beside", shipped=False)
    run_study(jobs_of(tiny_study, str(where), "micro"), store, QUIET, at_once=2)
    assert rows_of(store) == rows_of(measured)


@pytest.fixture
def stored(measured, monkeypatch):
    """Cells that are computed by taking their rows from the measured ones."""
    rows = measured.read()
    monkeypatch.setattr(run_cells, "compute", lambda job, folder, console: rows[job.key])
    monkeypatch.setattr(run_cells, "announce", lambda *values: None)
    return rows


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for Ray that runs each task when it is waited for: the real one is no dependency of the tests."""
    asked = []

    class Remote:
        def __init__(self, function):
            self.function = function

        def options(self, **options):
            asked.append(options)
            return self

        def remote(self, *values):
            return Task(self.function, values)

    class Task:
        def __init__(self, function, values):
            self.function, self.values = function, values

    fake = types.SimpleNamespace(
        init=lambda **options: asked.append(options),
        remote=lambda **options: Remote,
        wait=lambda waiting, num_returns: (waiting[:1], waiting[1:]),
        get=lambda task: task.function(*task.values),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ray", fake)
    return asked


def test_tasks_of_a_cluster_bring_their_rows_back(stored, cluster, tiny_study, tmp_path):
    store = RowStore(tmp_path / "cluster", shipped=False)
    run_study(jobs_of(tiny_study, "mine.yaml", "micro"), store, QUIET, ray="auto")
    assert cluster[0]["address"] == "auto" and cluster[1] == {"num_cpus": 1}
    assert store.read() == stored


def test_a_cluster_needs_a_package_and_says_so(stored, tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"--ray auto: the package ray is not installed"):
        run_study(jobs_of(tiny_study, "mine.yaml", "micro"), RowStore(tmp_path, shipped=False), QUIET, ray="auto")


def test_a_cell_that_fails_is_named_and_the_others_are_computed(stored, cluster, tiny_study, tmp_path, monkeypatch):
    def broken(job, folder, console):
        if job.cell.name == "frozen":
            raise LorgnetteError("no disk")
        return stored[job.key]

    monkeypatch.setattr(run_cells, "compute", broken)
    store = RowStore(tmp_path, shipped=False)
    with pytest.raises(LorgnetteError, match=r"1 of 2 cells failed, the same command tries again: frozen, seed 1"):
        run_study(jobs_of(tiny_study, "mine.yaml", "micro"), store, QUIET, ray="auto")
    assert [row.cell for row in store.read().values()] == ["trained"]


def test_divergence_is_a_result(tiny_study, tmp_path, monkeypatch):
    def diverges(run, folder, console):
        raise cells.DivergedError("the loss rose")

    monkeypatch.setattr(loop, "train", diverges)
    row = compute(jobs_of(tiny_study, "mine.yaml", "micro")[0], tmp_path, QUIET)
    assert row.failed == "the loss rose" and not row.tasks and row.cost["steps"] == 0


def test_an_equal_budget_of_flops_gives_the_dearer_cell_fewer_steps(tiny_study):
    study = Study.parse(tiny_study.plain() | {"budget": "flops"})
    first, second = (CellJob(study, "micro", cell, 1, "mine.yaml") for cell in study.cells)
    assert first.run.stages[0].steps == 2 > second.run.stages[0].steps
    assert budget_of(first.run, "steps") == [2.0]
    assert jobs_of(study, "mine.yaml", "micro")[0].key == jobs_of(tiny_study, "mine.yaml", "micro")[0].key


def test_rows_are_known_again_when_settings_have_grown(measured, tiny_study, tmp_path):
    """A row that an earlier version wrote has another key, and its settings lack what was added since."""
    old = RowStore(tmp_path / "old", shipped=False)
    for row in measured.read().values():
        settings = {name: value for name, value in row.settings.items() if name != "compile"}
        old.add(dataclasses.replace(row, key=f"0ld-{row.key.rpartition('-')[2]}", settings=settings))
    keys = [job.key for job in jobs_of(tiny_study, "mine.yaml", "micro")]
    assert set(old.read(keys)) == set(keys)
    assert set(old.read()) == {f"0ld-{keys[0].rpartition('-')[2]}"}


def test_a_cell_is_measured_on_the_way_and_learns_the_same(measured, tiny_study, tmp_path):
    scale = tiny_study.scale("micro").plain() | {"curve_every": 1, "curve_questions": 3}
    study = Study.parse(tiny_study.plain() | {"scales": {"micro": scale}})
    (job, *_), store = jobs_of(study, "mine.yaml", "micro"), RowStore(tmp_path / "curves", shipped=False)
    run_study([job], store, QUIET)
    (row,) = store.read().values()
    before = next(one for one in measured.read().values() if one.cell == row.cell)
    assert (row.loss, row.tasks, row.curve) == (before.loss, before.tasks, before.curve) and row.key != before.key
    assert [point[0] for point in row.score_curve] == [1, 2]
    assert row.score_curve[-1][1:4] == row.curve[-1][1:4]  # images, tokens and FLOPs
    assert row.score_curve[-1][5] == pytest.approx(fmean(row.loss.values()), abs=1e-4)
    assert row.score_curve[0][5] == pytest.approx(measured_number(row, "loss_curve") * 2 - row.score_curve[1][5])
    with pytest.raises(SettingsError, match="frozen was not measured during training"):
        measured_number(before, "score_curve")


def test_a_cell_that_is_asked_with_split_images_shares_the_training(measured, tiny_study, monkeypatch):
    asked_split = [{"name": "frozen"}, {"name": "split", "split": True}]
    study = Study.parse(tiny_study.plain() | {"cells": asked_split, "claims": []})
    whole, split = jobs_of(study, "mine.yaml", "micro")
    assert whole.key in measured.read() and split.run == whole.run and split.key != whole.key
    monkeypatch.setattr(loop, "train", None)  # the trained model is there
    asked = []
    plain = cells.measure_tasks
    monkeypatch.setattr(
        cells,
        "measure_tasks",
        lambda model, processor, *rest: asked.append(processor.images.split) or plain(model, processor, *rest),
    )
    row = compute(split, measured.folder, QUIET)
    assert asked == [True] and row.loss != measured.read()[whole.key].loss


def test_halving_stops_the_worse_half_and_says_that_it_favours_fast_learners(tiny_study, tmp_path, monkeypatch):
    rates = [{"name": str(rate), "changes": {"stages.0.lr": rate}} for rate in (1e-5, 2e-5, 3e-5, 4e-5)]
    base = {"changes": {"stages.0.steps": 8}}
    scale = {"micro": tiny_study.scale("micro").plain() | base}
    study = Study.parse(tiny_study.plain() | {"scales": scale, "cells": rates, "claims": []})
    store, trained = RowStore(tmp_path, shipped=False), []

    def computed(job, folder, console):
        steps = job.run.stages[0].steps
        trained.append((job.cell.name, steps))
        rate = job.run.stages[0].lr
        scores = {"scene_vqa": TaskScores([1.0], [0.0], [0], "same")}
        return example_row(job.cell.name, job.seed, scores, key=job.key, scale=job.scale_name, loss=1 / (rate * steps))

    monkeypatch.setattr(run_cells, "_as_processes", lambda jobs, folder, at_once: _computed(jobs, store, computed))
    monkeypatch.setattr(run_cells, "announce", lambda *values: None)
    monkeypatch.setattr(run_cells, "compute", computed)
    console = Console(record=True, width=300, file=io.StringIO())
    assert run_halved(study, "mine.yaml", "micro", store, console) == ["4e-05"]
    assert [steps for _, steps in trained] == [2] * 4 + [4] * 2 + [8]
    assert [name for name, _ in trained[4:]] == ["3e-05", "4e-05", "4e-05"]
    assert "favours cells that learn fast" in console.export_text()
    said = stopped_early(study, "mine.yaml", "micro", store, 1)
    assert [sentence.split(" (")[0] for sentence in said[:-1]] == [
        "1e-05: stopped at 0.25 of the steps",
        "2e-05: stopped at 0.25 of the steps",
        "3e-05: stopped at 0.25 of the steps",
        "3e-05: stopped at 0.5 of the steps",
    ]
    run_halved(study, "mine.yaml", "micro", store, QUIET)
    assert len(trained) == 7  # nothing is computed twice


def _computed(jobs, store, compute):
    for job in jobs:
        store.add(compute(job, store.folder, QUIET))
        yield job, ""


def test_halving_chooses_the_cells_itself(tmp_path):
    result = CliRunner().invoke(
        app, ["study", "run", "t3", "--halving", "--cell", "fa-lora", "--folder", str(tmp_path)]
    )
    assert isinstance(result.exception, SettingsError) and "leave out --cell" in str(result.exception)
