"""`lorgnette train` from end to end: the micro recipe through all its stages, killed and stopped on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from typer.testing import CliRunner

from lorgnette.cli import app, main
from lorgnette.errors import CheckpointError
from lorgnette.hub.load import load
from lorgnette.train.adapters.peft import adapted_layers, merge_adapters
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.resume import model_at
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer

VALIDATION = {0: ("interleaved", "pairs"), 1: ("interleaved", "pairs", "documents"), 2: ("instruct",), 3: ("chat",)}
PATHS = [(stage, number, kind) for stage, kinds in VALIDATION.items() for number, kind in enumerate(kinds)]
SMALL = ("steps=2", "pack={tokens: 512, patches: 1024, packs_per_step: 1}")
MICRO = [
    "micro", "threads=1", "loader.workers=0", "checkpoints.every=2",
    *(f"stages.{stage}.{setting}" for stage in VALIDATION for setting in SMALL),
    # a split that is a tenth as large as that for training, and prepared as much sooner
    *(f"stages.{stage}.sources.{number}.path=builtin:validation/{kind}" for stage, number, kind in PATHS),
]  # fmt: skip


def command(monkeypatch, *arguments):
    """Exit status of the command line for the arguments."""
    monkeypatch.setattr(sys, "argv", ["lorgnette", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_all_stages_of_micro_killed_and_stopped_end_in_the_same_bits(tmp_path, monkeypatch, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = [sys.executable, "-m", "lorgnette.cli", "train", *MICRO, "--folder", str(killed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.time() + 200
        while len(read_log(killed / "log.jsonl")) < 5 and time.time() < deadline:  # the third stage, with adapters
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not (killed / "model").exists()
    assert command(monkeypatch, "train", *MICRO, "--folder", killed, "--hours", "0") == 75
    assert "which is saved in" in capsys.readouterr().err
    stopped = manager.read_progress(manager.checkpoints(killed / "checkpoints")[-1])
    assert stopped.total_step < 8 and stopped.stage >= 2, "it stopped in a stage with adapters"
    for folder in (killed, whole):
        assert command(monkeypatch, "train", *MICRO, "--folder", folder) == 0
        rows = read_log(folder / "log.jsonl")
        assert [row["total_step"] for row in rows] == list(range(1, 9))
        assert [row["stage"] for row in rows[::2]] == ["stage1", "stage2", "instruct", "chat"]
    assert [row["data"] for row in read_log(killed / "log.jsonl")] == [row["data"] for row in rows]
    adapters = [f"adapters/{stage}/dora/adapter_model.safetensors" for stage in ("instruct", "chat")]
    for name in ("model/model.safetensors", *adapters):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_limit_of_time_saves_says_so_and_goes_on(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "run.yaml").write_text(tiny.to_yaml())
    arguments = ["train", tmp_path / "run.yaml", "--folder", tmp_path / "run"]
    for step in (1, 2):
        assert command(monkeypatch, *arguments, "--hours", "0") == 75
        said = capsys.readouterr().err
        assert f"stopped after step {step} of 11, which is saved in" in said and "the same command resumes" in said
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        assert command(monkeypatch, *arguments, "--hours", "0") == 75
        assert "stopped" not in capsys.readouterr().err, "one process of a run says it for all"
    assert command(monkeypatch, *arguments, "--hours", "1", "checkpoints.every=4") == 0, "which decides nothing"
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 11
    assert command(monkeypatch, *arguments, "stages.0.lr=0.1") == 1
    assert "holds a run of other settings" in capsys.readouterr().err


def test_an_unfinished_run_is_exported_with_its_adapters_merged(tiny, tmp_path, monkeypatch):
    from lorgnette.train.data import build_data

    run = tiny.override(
        "stages.0.vision.mode=lora", "stages.0.language.mode=dora", "stages.0.lora.rank=2", "stages.0.lr=0.02"
    )
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    folder, out = tmp_path / "run", tmp_path / "out"
    arguments = ["train", tmp_path / "run.yaml", "--folder", folder]
    for _ in range(4):
        assert command(monkeypatch, *arguments, "--hours", "0") == 75
    result = CliRunner().invoke(app, ["export", "--model", str(folder), str(out), "--verify"])
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    newest = manager.checkpoints(folder / "checkpoints")[-1]
    assert newest.name == "step-000004"
    model, processor = model_at(newest, run, run.stages[0]).eval(), Trainer(run, folder).processor
    assert len(adapted_layers(model)) == 6 + 2 * 7
    batch = build_data(run, 0, processor).batches(9)[0]
    with torch.no_grad():
        adapted, exported = model(batch).logits, load(out)[0](batch).logits
        merge_adapters(model)
        merged = model(batch).logits
    assert torch.equal(merged, exported), "what is written is what is merged"
    assert (merged - adapted).abs().max() < 1e-6 * adapted.abs().max()


def test_what_a_run_goes_on_from_is_no_model(tiny, tmp_path):
    Trainer(tiny, tmp_path).train()
    done = CliRunner().invoke(
        app, ["generate", "--prompt", "x", "--model", str(tmp_path / "checkpoints" / "step-000011")]
    )
    assert "step-000011: is a checkpoint to resume from; give the run's own folder" in str(done.exception)


def test_a_run_without_a_checkpoint_has_nothing_to_export(tiny, tmp_path):
    Trainer(tiny, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"has no model yet; .* `lorgnette export` writes"):
        load(tmp_path / "run")
    result = CliRunner().invoke(app, ["export", "--model", str(tmp_path / "run"), str(tmp_path / "out")])
    assert "has no checkpoint yet" in str(result.exception) and not (tmp_path / "out").exists()
