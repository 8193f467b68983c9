"""Data that changed between two sessions of a run are refused; the same data elsewhere are not."""

from __future__ import annotations

import os
import shutil

import pytest
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.run import Run
from lorgnette.train.checkpoint.unchanged import ChangedDataError
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Interrupted, Trainer
from tests.train.watchers import StopAfter

QUIET = Console(quiet=True)
SOURCES = {
    "chat": {"pack": {"tokens": 100, "patches": 64, "packs_per_step": 1}},
}


def training_on(short, kind, rows) -> Run:
    values = short.plain()
    values["stages"][0] |= {"sources": [{"kind": kind, "path": str(rows)}], **SOURCES[kind]}
    return Run.parse(values | {"checkpoints": {"every": 1}})


def stopped(run, folder):
    """Train two steps of the run."""
    with pytest.raises(Interrupted):
        Trainer(run, folder, QUIET, callbacks=[StopAfter(2)]).train()


@pytest.fixture
def data(squares, tmp_path):
    return shutil.copytree(squares, tmp_path / "data")


@pytest.mark.parametrize("kind", SOURCES)
def test_data_that_changed_are_refused_and_named(short, data, tmp_path, kind):
    rows = data / "rows.jsonl"
    run, was = training_on(short, kind, rows), os.stat(rows).st_mtime_ns
    stopped(run, tmp_path / "run")
    text = rows.read_text()
    rows.write_text(text.replace('"green"', '"white"', 1))  # of the same length
    assert os.stat(rows).st_mtime_ns > was
    for _ in range(2):
        with pytest.raises(ChangedDataError, match=r"stage 'first' began with other data: .*--changed-data"):
            Trainer(run, tmp_path / "run", QUIET).train()
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 2
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    Trainer(run, tmp_path / "other", QUIET, changed_data=True).train()
    rows.write_text(text)
    Trainer(run, tmp_path / "run", QUIET).train()
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == len(read_log(tmp_path / "other" / "log.jsonl")) == 5


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_data_elsewhere_go_on_to_the_same_losses(short, data, tmp_path, kind):
    run, moved = training_on(short, kind, data / "rows.jsonl"), tmp_path / "moved"
    Trainer(run, tmp_path / "whole", QUIET).train()
    stopped(run, tmp_path / "run")
    shutil.move(data, moved)
    shutil.rmtree(moved / ".lorgnette", ignore_errors=True)
    Trainer(training_on(short, kind, moved / "rows.jsonl"), tmp_path / "run", QUIET).train()
    losses = [[row["loss"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("run", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == 5


def test_other_settings_are_still_refused_and_a_run_that_has_not_begun_compares_nothing(short, data, tmp_path):
    rows = data / "rows.jsonl"
    run = training_on(short, "chat", rows)
    stopped(run, tmp_path / "run")
    with pytest.raises(SettingsError, match=r"stages\.0\.sources\.0\.weight is 1"):
        Trainer(run.override("stages.0.sources.0.weight=2"), tmp_path / "run", QUIET)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    rows.write_text(rows.read_text().replace('"green"', '"white"', 1))
    Trainer(run, tmp_path / "run", QUIET).train()
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 5
