"""The loop: learns, resumes to the same bits, changes nothing it should not, and fails in sentences."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from rich.console import Console

from lorgnette.errors import CheckpointError, LorgnetteError, SettingsError
from lorgnette.files import DiskError
from lorgnette.run import Run
from lorgnette.train.checkpoint import manager
from lorgnette.train.data import build_data
from lorgnette.train.logging.log import StepLog, read_log
from lorgnette.train.loop import Interrupted, Trainer
from lorgnette.train.optim import build_optimiser, schedule
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import NotFiniteError, train_step
from tests.train.watchers import OnStep, StopAfter

QUIET = Console(quiet=True)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def trained(run, folder):
    return weights(Trainer(run, folder, QUIET).train())


MODES = {
    "full": [],
    "frozen vision": ["stages.0.vision.mode=frozen", "stages.1.vision.mode=frozen"],
    "lora": [
        "stages.0.vision.mode=lora",
        "stages.0.language.mode=lora",
        "stages.0.lora.rank=2",
        "stages.0.lora.dropout=0.1",
    ],
    "muon": ["stages.0.optimiser=muon", "stages.1.optimiser=muon"],
    "dora": [
        *(f"stages.{stage}.{part}.mode=dora" for stage in (0, 1) for part in ("vision", "language")),
        *(f"stages.{stage}.lora={{rank: 2, targets: [query, up, head]}}" for stage in (0, 1)),
    ],
}


@pytest.mark.parametrize("mode", MODES)
def test_stopping_at_any_step_and_going_on_gives_the_same_bits(tiny, tmp_path, mode):
    run = tiny.override(*MODES[mode])
    whole = trained(run, tmp_path / "whole")
    for stop in (1, 5, 8, 11):
        folder = tmp_path / f"stop-{stop}"
        try:
            Trainer(run, folder, QUIET, callbacks=[StopAfter(stop)]).train()
        except Interrupted as stopped:
            assert f"after step {stop} of 11" in str(stopped)
        assert same(trained(run, folder), whole), f"stopped at step {stop}"
        assert [row["total_step"] for row in read_log(folder / "log.jsonl")] == list(range(1, 12))


def started(run, folder):
    """The command line training `run` in a process group of its own, once its first checkpoint is written."""
    (folder / "run.yaml").write_text(run.to_yaml())
    arguments = ["train", str(folder / "run.yaml"), "--folder", str(folder / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "lorgnette.cli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 120
    while not manager.checkpoints(folder / "run" / "checkpoints") and time.time() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def test_killed_without_warning_it_goes_on(tiny, tmp_path):
    run = tiny.override("stages.0.steps=60", "checkpoints.every=5")
    process = started(run, tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert manager.checkpoints(tmp_path / "run" / "checkpoints"), "it was killed before its first checkpoint"
    assert same(trained(run, tmp_path / "run"), trained(run, tmp_path / "whole"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_says_so(tiny, tmp_path, number):
    process = started(tiny.override("stages.0.steps=5000", "checkpoints.every=5", "loader.workers=1"), tmp_path)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "the same command resumes from there" in said and "Traceback" not in said
    assert read_log(tmp_path / "run" / "log.jsonl")


def test_a_signal_ends_after_the_step_in_flight(tiny, tmp_path):
    signalled = OnStep(lambda state, metrics: metrics.total_step == 4 and os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="the same command resumes"):
        Trainer(tiny, tmp_path, QUIET, callbacks=[signalled]).train()
    assert manager.read_progress(manager.checkpoints(tmp_path / "checkpoints")[-1]).total_step == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tiny, tmp_path, workers):
    assert same(trained(tiny, tmp_path / "a"), trained(tiny.override(f"loader.workers={workers}"), tmp_path / "b"))


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_cutting_a_step_in_packs_gives_the_same_update(tiny, micro_batches):
    updates = []
    for packs in (1, micro_batches):
        run = tiny.override(f"stages.0.micro_batches={packs}")
        model, processor = build(run)
        prepare_parts(model, run.stages[0], seed=0)
        optimiser = build_optimiser(model, run.stages[0])
        train_step(model, build_data(run, 0, processor).batches(0), optimiser, max_grad_norm=1.0)
        updates.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in updates[0].items():
        torch.testing.assert_close(updates[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_merged_adapters_compute_the_same(tiny):
    from lorgnette.train.adapters.peft import merge_adapters

    modes = ("stages.0.language.mode=dora", "stages.0.vision.mode=lora")
    stage = tiny.override(*modes, "stages.0.lora={rank: 2, targets: [query, down, head]}").stages[0]
    model, processor = build(tiny)
    names = list(weights(model))
    prepare_parts(model, stage, seed=0)
    optimiser = build_optimiser(model, stage)
    batches = build_data(tiny, 0, processor).batches(0)
    for _ in range(3):
        train_step(model, batches, optimiser, max_grad_norm=1.0)
    model.eval()
    adapted = model(batches[0]).logits
    merge_adapters(model)
    assert list(weights(model)) == names
    torch.testing.assert_close(model(batches[0]).logits, adapted, rtol=1e-5, atol=1e-5)


def test_checkpoints_are_few_and_whole(tiny, tmp_path):
    trained(tiny.override("checkpoints.keep=2"), tmp_path)
    assert [path.name for path in manager.checkpoints(tmp_path / "checkpoints")] == ["step-000008", "step-000011"]
    written = {".lock", "checkpoints", "data.json", "log.jsonl", "run.yaml", "packs-first.json", "packs-second.json"}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_a_run_of_other_settings_is_not_overwritten(tiny, tmp_path):
    with pytest.raises(LorgnetteError, match="no such file"):
        Trainer(tiny.override("stages.0.sources.0.path=nowhere"), tmp_path, QUIET).train()
    trained(tiny, tmp_path)  # what failed before its first step is no run
    with pytest.raises(SettingsError, match=r"stages\.0\.lr is 0.003 there, 0.1 here"):
        Trainer(tiny.override("stages.0.lr=0.1"), tmp_path, QUIET)


def test_an_unreadable_image_is_counted_named_and_left_out(tiny, squares, tmp_path):
    shutil.copytree(squares, tmp_path / "data", ignore=shutil.ignore_patterns(".lorgnette"))
    (tmp_path / "data" / "7.png").write_bytes((squares / "7.png").read_bytes()[:40])
    source = f"stages.0.sources.0.path={tmp_path / 'data' / 'rows.jsonl'}"
    run = tiny.override(source, "stages.0.pack.samples=31", "loader.workers=1")
    console = Console(record=True, file=io.StringIO(), width=600)
    Trainer(run, tmp_path / "run", console).train()
    before = console.export_text().partition("first: 5 steps")[0]
    assert "1 of 32 rows are not trained on" in before
    assert re.search(r"rows\.jsonl, row 8: unreadable image: .?image 0", before)
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert len(rows) == 11 and not any(row["replaced"] for row in rows)
    assert [(row["samples"], row["images"]) for row in rows[:5]] == [(31, 30)] * 5  # all the others, in each epoch


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        ("", "rows: holds no rows$"),
        ("folder", "rows: holds no file; check the path"),
        (
            '{"text": 1}\n',
            r"none of 1 rows can be trained on \(no column: 1\); .*, row 1: no column: .*; all in .*rejected\.jsonl",
        ),
    ],
)
def test_a_source_that_holds_nothing_is_named(tiny, tmp_path, content, expected):
    path = tmp_path / "rows"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(LorgnetteError, match=expected):
        Trainer(tiny.override(f"stages.0.sources.0.path={path}"), tmp_path / "run", QUIET).train()


def test_a_loss_that_is_not_finite_touches_no_weight(tiny):
    model, processor = build(tiny)
    prepare_parts(model, tiny.stages[0], seed=0)
    optimiser = build_optimiser(model, tiny.stages[0])
    with torch.no_grad():
        model.connector.latents.fill_(float("nan"))
    before = weights(model)
    with pytest.raises(NotFiniteError, match=r"rows\.jsonl, row"):
        train_step(model, build_data(tiny, 0, processor).batches(0), optimiser, max_grad_norm=1.0)
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before if name != "connector.latents")


def test_a_full_disk_is_said_and_training_goes_on(tiny, tmp_path, monkeypatch):
    full_at(monkeypatch, "step-000008")
    console = Console(record=True, quiet=False, file=io.StringIO(), width=300)
    model = Trainer(tiny.override("stages.1.steps=4", "checkpoints.keep=9"), tmp_path / "full", console).train()
    said = console.export_text()
    assert said.count("the disk is full; free some space") == 1
    assert "training continues, and the last good checkpoint stays" in said
    found = sorted(path.name for path in (tmp_path / "full" / "checkpoints").iterdir())
    assert found == ["step-000003", "step-000005", "step-000009"]
    monkeypatch.undo()
    assert same(weights(model), trained(tiny.override("stages.1.steps=4"), tmp_path / "whole"))


def test_a_full_disk_when_asked_to_stop_is_an_error(tiny, tmp_path, monkeypatch):
    full_at(monkeypatch, "step-000004")
    with pytest.raises(DiskError, match="the disk is full; free some space and run the same command again"):
        Trainer(tiny, tmp_path, QUIET, callbacks=[StopAfter(4)]).train()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]


def test_adapters_that_a_full_disk_does_not_take_end_no_run(tiny, tmp_path, monkeypatch):
    run = tiny.override("stages.0.vision.mode=lora", "stages.0.lora.rank=2")
    save_file = safetensors.torch.save_file

    def full(tensors, path, **how):
        if "adapters" in str(path):
            raise safetensors.SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        save_file(tensors, path, **how)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    console = Console(record=True, file=io.StringIO(), width=300)
    model = Trainer(run, tmp_path / "full", console).train()
    said = console.export_text()
    assert re.search(
        r"adapters/first/lora: cannot be written: the disk is full; free some space; training continues", said
    )
    monkeypatch.undo()
    assert same(weights(model), trained(run, tmp_path / "whole"))


def test_rows_that_a_full_disk_does_not_take_are_written_with_the_next(tiny, tmp_path):
    class Full(io.FileIO):
        def write(self, data):
            super().write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    def disturb(state, metrics):
        log.file.close()
        log.file = (Full if metrics.total_step in (2, 3) else io.FileIO)(log.path, "ab")

    console = Console(record=True, file=io.StringIO(), width=300)
    trainer = Trainer(tiny, tmp_path, console, callbacks=[OnStep(disturb)])
    (log,) = (callback for callback in trainer.callbacks if isinstance(callback, StepLog))
    trainer.train()
    assert console.export_text().count("log.jsonl: cannot be written: the disk is full") == 1
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["total_step"] for line in lines] == list(range(1, 12))


def full_at(monkeypatch, *steps):
    """Writing the tensors of these checkpoints meets a full disk."""
    write_data = dcp.FileSystemWriter.write_data

    def write(self, *arguments):
        if any(step in str(self.path) for step in steps):
            raise OSError(28, "No space left on device")
        return write_data(self, *arguments)

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", write)


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp", "progress.json"])
def test_a_damaged_checkpoint_is_named(tiny, tmp_path, file):
    trained(tiny, tmp_path)
    (manager.checkpoints(tmp_path / "checkpoints")[-1] / file).write_bytes(b"{")
    with pytest.raises(CheckpointError, match="step-000011"):
        trained(tiny, tmp_path)


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tiny):
    with pytest.raises(SettingsError, match=r"set model\.language\.vocabulary to"):
        build(tiny.override("model.language.vocabulary=1000"))


LATER = {
    "every part is frozen; set the mode": [
        f"stages.1.{part}.mode=frozen" for part in ("vision", "connector", "language")
    ],
    "name no linear layer of the part": ["stages.1.vision.mode=lora", "stages.1.lora.targets=[gate]"],
    "no such file": ["stages.1.sources.0.path=nowhere.jsonl"],
}


@pytest.mark.parametrize("sentence", LATER)
def test_a_later_stage_that_cannot_begin_ends_the_run_before_its_first_step(tiny, tmp_path, sentence):
    with pytest.raises(LorgnetteError, match=sentence):
        Trainer(tiny.override(*LATER[sentence]), tmp_path, QUIET).train()
    assert not read_log(tmp_path / "log.jsonl")


def test_adapters_without_peft_say_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # as Python marks what cannot be imported
    with pytest.raises(SettingsError, match=r"run `pip install 'lorgnette\[lora\]'`"):
        Trainer(tiny.override("stages.1.vision.mode=lora"), tmp_path, QUIET).train()
    assert not read_log(tmp_path / "log.jsonl")


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_schedule_warms_up_and_ends_where_it_should(tiny, kind):
    stage = tiny.override("stages.0.steps=11", "stages.0.final_lr=0.1", f"stages.0.schedule={kind}").stages[0]
    shares = [schedule(stage, step) for step in range(stage.steps)]
    assert shares[:2] == [0.5, 1.0]
    assert shares[2] == 1.0
    assert shares[-1] == pytest.approx(1.0 if kind == "constant" else 0.1)
    assert all(later <= earlier for earlier, later in pairwise(shares[2:]))


def test_weight_decay_spares_vectors_and_embeddings(tiny):
    model, _ = build(tiny)
    stage = tiny.override("stages.0.vision.lr=0.5", "stages.0.vision.weight_decay=0.7").stages[0]
    prepare_parts(model, stage, seed=0)
    for group in build_optimiser(model, stage).param_groups:
        vision = group["names"][0].startswith("vision.")
        assert group["peak_lr"] == (0.5 if vision else 0.003)
        if group["weight_decay"]:
            assert group["weight_decay"] == (0.7 if vision else 0.1)
            assert all(parameter.ndim >= 2 for parameter in group["params"])


def test_the_log_is_plain_rows(tiny, tmp_path):
    trained(tiny, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    wanted = {"total_step", "stage", "loss", "lr", "grad_norm", "supervised_tokens", "images", "seconds", "waited"}
    assert wanted <= rows[0].keys()
    assert [row["stage"] for row in rows] == ["first"] * 5 + ["second"] * 6
    assert rows[0]["lr"] == pytest.approx(0.0015)


def test_settings_are_saved_with_the_run(tiny, tmp_path):
    Trainer(tiny, tmp_path, QUIET)
    assert Run.load(tmp_path / "run.yaml") == tiny
