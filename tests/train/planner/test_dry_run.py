"""Cost of a run before it starts: estimated from shapes alone, and compared with two real steps."""

from __future__ import annotations

import io
import re
from typing import get_args

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.run import Projection
from lorgnette.train.data import build_data
from lorgnette.train.planner import dry_run
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts

ALL = get_args(Projection)


def said(run):
    console = Console(record=True, file=io.StringIO(), width=200)
    dry_run.dry_run(run, console)
    return console.export_text()


@pytest.mark.parametrize("mode", ["full", "frozen", "lora", "lora 0.1", "dora", "dora 0.1"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_estimate_of_memory_is_near_what_two_steps_hold(tiny, mode, checkpointed):
    word, _, dropout = mode.partition(" ")
    run = tiny.override(
        *(f"stages.0.{part}.mode={word}" for part in ("vision", "language")), "stages.0.pack.samples=32",
        f"stages.0.lora={{rank: 4, dropout: {dropout or 0}, targets: [{', '.join(ALL)}]}}",
    )  # fmt: skip
    if checkpointed:
        run = run.override("stages.0.checkpointing=[vision, connector, language]")
    model, processor = build(run)
    prepare_parts(model, run.stages[0], seed=0)
    peak, seconds, memory = dry_run.measure(run, run.stages[0], model, build_data(run, 0, processor))
    assert seconds > 0
    assert memory.peak == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("mode", ["full", "frozen", "dora"])
def test_the_estimate_of_blocks_of_cross_attention_is_near_what_two_steps_hold(tiny, mode):
    run = tiny.override(
        "model.fusion={kind: cross_attention, every: 1}", "model.language.layers=6", "stages.0.pack.samples=32",
        f"stages.0.language.mode={mode}", f"stages.0.lora={{rank: 4, targets: [{', '.join(ALL)}]}}",
    )  # fmt: skip
    model, processor = build(run)
    prepare_parts(model, run.stages[0], seed=0)
    peak, _, memory = dry_run.measure(run, run.stages[0], model, build_data(run, 0, processor))
    assert memory.peak == pytest.approx(peak, rel=0.05)
    assert {"fusion", "language"} < memory.parts.keys() and memory.parts["fusion"].activations > 0


def test_the_dry_run_prints_every_stage_and_its_check(tiny, tmp_path):
    (tmp_path / "run.yaml").write_text(tiny.to_yaml())
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--dry-run"], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert "first: 5 steps" in done.output and "second: 6 steps" in done.output
    assert "the estimate is" in " ".join(done.output.split())


@pytest.mark.parametrize("name", ["stage1", "stage2", "instruct", "chat"])
def test_the_plan_of_eight_billion_parameters_needs_neither_weights_nor_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["train", f"idefics2/{name}", "--dry-run"], terminal_width=200)
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    said = " ".join(done.output.split())
    assert re.search(
        r"steps of about [\d,]{7,} tokens \([\d,]+ supervised\), [\d,]+ images and \d[\d,]* packs; .*FLOPs", said
    )
    assert "is not here: figures are for full packs" in said
    assert re.search(r" language (lora|dora) 7,41\d 17\d\.\d\d 28,27\d ", said), "counts and MiB, in 80 columns"
    assert f"two real steps of {name} are skipped: data/" in said


def test_steps_that_would_not_fit_in_memory_are_left_out(tiny, monkeypatch):
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 1000)
    assert re.search(r"steps of first are skipped: the estimate is .* MiB, and 0.0 MiB of memory are free", said(tiny))


def test_the_cost_of_a_step_is_that_of_its_packs(tiny):
    stage = tiny.stages[0]
    packs = dry_run.first_packs(tiny, 0, steps=2)
    cost = packs.cost(tiny, stage)
    assert (len(packs.batches), cost.packs) == (2, 1)
    assert cost.tokens == sum(batch.documents.total for batch in packs.batches) / 2
    assert cost.images == sum(len(batch.images) for batch in packs.batches) / 2 and cost.flops > 0
    assert dry_run.first_packs(tiny, 0).cost(tiny, stage).packs == 1
