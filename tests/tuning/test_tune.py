"""`lorgnette tune` from end to end: what is learned is seen, a kill changes nothing, and a recipe tells all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lorgnette.cli import main
from lorgnette.errors import SettingsError
from lorgnette.hub.card import is_own_card
from lorgnette.hub.load import load
from lorgnette.output import new_console
from lorgnette.train.logging.log import read_log
from lorgnette.tuning.run_tuning import plan_tuning, tune
from lorgnette.tuning.tune_options import TuneOptions

QUICK = ("threads=1", "loader.workers=0", "parallel_microbatches=1")


def command(monkeypatch, *arguments):
    """Exit status of the command line for the arguments."""
    monkeypatch.setattr(sys, "argv", ["lorgnette", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


@pytest.mark.timeout(900)
def test_what_is_tuned_is_seen(base, receipts, tmp_path, capsys):
    """Sighted minus blind rises on held-out receipts, and its interval lies above zero."""
    options = TuneOptions(out=tmp_path / "run", hold_out=0.2, steps=70, overrides=(*QUICK, "validation.every=35"))
    results = tune(str(base), [str(receipts)], options)
    assert results.after.count == 24 and results.choice.metric == "exact_match"
    assert results.improvement.low > 0, "better than before"
    assert results.line.gain.low > 0 and results.line.verdict == "learned"
    said = capsys.readouterr().out
    assert "it looks at the pictures" in said and "96 " in said and "24 questions are few" in said
    folder = tmp_path / "run"
    losses = [row["losses"] for row in read_log(folder / "validation.jsonl")]
    assert len(losses) == 2 and (folder / "best").is_dir()
    assert json.loads((folder / "results.json").read_text())["sighted"]["verdict"] == "learned"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "points from looking" in page and "data:image" in page and "<script" not in page
    card = (folder / "model/README.md").read_bytes()
    assert b"receipts.jsonl" in card and is_own_card(card)
    model, _ = load(folder)
    assert model.config == load(base)[0].config


@pytest.mark.timeout(900)
def test_a_killed_tuning_ends_in_the_bytes_of_the_recipe(base, receipts, tmp_path, monkeypatch, capsys):
    """Killed in the middle, and run again: the same model as `lorgnette train` makes of the recipe without a break."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = [
        "tune",
        base,
        receipts,
        *QUICK,
        "checkpoints.every=2",
        "--steps",
        "8",
        "--out",
        killed,
        "--hold-out",
        "0.1",
    ]
    arguments = [sys.executable, "-m", "lorgnette.cli", *map(str, words)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.time() + 600
        while len(read_log(killed / "log.jsonl")) < 5 and time.time() < deadline:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "model").exists()
    assert command(monkeypatch, *words) == 0
    assert command(monkeypatch, "train", killed / "recipe.yaml", "--folder", whole) == 0
    ours, theirs = ((folder / "model/model.safetensors").read_bytes() for folder in (killed, whole))
    assert ours == theirs
    capsys.readouterr()
    assert command(monkeypatch, *words) == 0, "all done already"
    assert "after:" in capsys.readouterr().out


def test_corrupt_rows_are_skipped_counted_and_shown(base, receipts, tmp_path, capsys):
    folder = tmp_path / "data"
    shutil.copytree(receipts.parent, folder, ignore=shutil.ignore_patterns(".lorgnette"))
    (folder / "scans/0.png").write_bytes(b"no picture")
    lines = (folder / "receipts.jsonl").read_text().splitlines()
    lines[4] = lines[4][:-9]
    (folder / "receipts.jsonl").write_text("\n".join(lines) + "\n")
    plan = plan_tuning(str(base), [str(folder / "receipts.jsonl")], TuneOptions(out=tmp_path / "run"), new_console())
    said = capsys.readouterr().out
    assert plan.data.prepared[0].facts["refused"] == 2 and sum(plan.data.trained) + sum(plan.data.held_out) == 118
    assert "2 of 120 rows are not trained on (" in said and "receipts.jsonl, row 1: " in said


def test_a_setting_is_obeyed_or_refused_by_name(base, receipts, tmp_path):
    plan = plan_tuning(
        str(base),
        [str(receipts)],
        TuneOptions(out=tmp_path / "a", metric="anls", overrides=("stages.tune.lora.rank=4",)),
        new_console(quiet=True),
    )
    assert plan.run.stages[0].lora.rank == 4 and plan.task.metric == "anls"
    for wrong, said in (
        (TuneOptions(overrides=("stages.tune.rank=4",)), "stages.0.rank: no such setting"),
        (TuneOptions(overrides=("stages.tuned.lr=4",)), "'tuned' is not an index below 1, or one of tune"),
        (TuneOptions(metric="anlz"), "metric 'anlz' is unknown"),
        (TuneOptions(kind="chats"), "chats"),
        (TuneOptions(hold_out=0.9), "--hold-out is 0.9"),
    ):
        with pytest.raises(SettingsError, match=said):
            plan_tuning(
                str(base),
                [str(receipts)],
                TuneOptions(**{**vars(wrong), "out": tmp_path / "b"}),
                new_console(quiet=True),
            )


def test_data_are_asked_for_and_given_once(base, receipts, tmp_path, monkeypatch, capsys):
    for data, said in (
        (["stages.tune.lr=1"], "no data: give files"),
        ([receipts, receipts], "is given twice"),
        ([tmp_path / "none.jsonl"], "no such file"),
        ([base / "run.yaml"], "its kind is not clear: its files are 1 of .yaml"),
    ):
        assert command(monkeypatch, "tune", base, *data, "--out", tmp_path / "run") == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_writes_the_recipe_and_trains_nothing(base, receipts, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "tune", base, receipts, *QUICK, "--out", tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "peak: " in said and "100 steps will take about" in said
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["held_out.txt", "recipe.yaml"]


@pytest.mark.slow
def test_two_ranks_tune_as_one_process_does(base, receipts, tmp_path, monkeypatch):
    """By torchrun: the first writes, both train and ask, and the losses are those of the recipe in one process."""
    two, one = tmp_path / "two", tmp_path / "one"
    words = ["tune", base, receipts, *QUICK, "--steps", "2", "--out", two, "--hold-out", "0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lorgnette"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *map(str, words)], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("Report: ") == 1, "the second rank prints nothing"
    found = json.loads((two / "results.json").read_text())
    assert found["questions"] == 12 and (two / "report.html").is_file()
    assert is_own_card((two / "model/README.md").read_bytes())
    sessions = (two / "eval/after/sessions.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["rank"] for line in sessions) == [0, 1], "both ask"
    assert command(monkeypatch, "train", two / "recipe.yaml", "--folder", one) == 0
    losses = [[row["loss"] for row in read_log(folder / "log.jsonl")] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=5e-5)
