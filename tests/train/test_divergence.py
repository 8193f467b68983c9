"""The watch for divergence finds spikes and slow rises, is silent on noise, and judges alike after a resume."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from rich.console import Console

from lorgnette.run import DivergenceConfig
from lorgnette.train import divergence
from lorgnette.train.divergence import FIRST, DivergedError, DivergenceMonitor, Finding, Rise
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Interrupted, Trainer
from tests.train.watchers import StopAfter

QUIET = Console(quiet=True)


def rises(losses, **settings):
    """Steps at which a rise is told, counted from 0, and its words."""
    rise = Rise(DivergenceConfig(**settings))
    return [(step, found.said) for step, loss in enumerate(losses) if (found := rise.see(step, loss))]


def noisy(level, share=0.1, seed=0):
    draw = random.Random(seed)
    return [one * (1 + share * draw.gauss(0, 1)) for one in level]


def falling(steps=200, start=6.0, end=1.0):
    return [end + (start - end) * math.exp(-step / 40) for step in range(steps)]


def test_what_counts_as_a_spike():
    guard = DivergenceMonitor(DivergenceConfig(window=8), warmup=2)
    assert all(guard.see(0, 9.0, 1e9) is None for _ in range(3)), "nothing to compare with"
    for step in range(2, 12):
        assert guard.see(step, 1.0 + 0.01 * (step % 2), 2.0) is None
    assert guard.see(12, 1.02, 3.0) is None
    assert "loss 3.000" in guard.see(13, 3.0, 2.0).said
    assert "gradient norm 50" in guard.see(14, 1.0, 50.0).said


def test_a_slow_rise_is_found_once_and_no_step_of_it_is_a_spike():
    losses = noisy(falling() + [1.0 + step / 400 for step in range(200)] + [1.5] * 300)
    guard = DivergenceMonitor(DivergenceConfig(), warmup=20)
    found = [(step, found) for step, loss in enumerate(losses) if (found := guard.see(step, loss, 1.0))]
    assert len(found) == 1
    step, rise = found[0]
    assert 250 < step < 400 and 100 < rise.since < 260
    assert rise.said.startswith("a slow rise: mean loss 1.") and f"up to step {rise.since} of" in rise.said
    assert len(rises(losses + noisy([2.5] * 200))) == 2, "what rises on is told again"


def test_a_rise_within_the_warm_up_is_found_by_the_first_steps():
    losses = noisy([2.0] * FIRST + [2.0 + min(step, 20) / 10 for step in range(100)])
    ((step, said),) = rises(losses)
    assert step < 80 and f"over {FIRST} up to step {FIRST} of the stage" in said


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3])
def test_a_plateau_with_noise_is_no_rise(share):
    assert not rises(noisy(falling() + [1.0] * 8000, share))
    assert not rises(noisy([2.0] * 8000, share, seed=1))


def test_mixtures_of_easy_and_hard_packs_are_no_rise():
    draw = random.Random(0)
    assert not rises([draw.choice((0.5, 3.0)) for _ in range(8000)])
    assert not rises([math.exp(draw.gauss(0, 1)) for _ in range(8000)])
    assert not rises([9.0 if draw.random() < 0.02 else 1.0 + 0.02 * draw.gauss(0, 1) for _ in range(8000)])


def test_a_bump_that_passes_and_a_rise_below_the_share_are_not_told():
    assert not rises(noisy(falling() + [1.6] * 10 + [1.0] * 300, 0.05))
    up = noisy([1.0] * 200 + [1.2] * 200, 0.01)
    assert not rises(up, rise=0.3)
    assert rises(up, rise=0.1)


def test_a_stage_begins_anew():
    quiet, loud = noisy([0.5] * 200), noisy([2.0] * 200)
    assert len(rises(quiet + loud)) == 1
    assert not rises(quiet) and not rises(loud), "each stage has a guard of its own"


@pytest.mark.parametrize("act", ["report", "skip", "rewind", "stop"])
def test_a_log_that_is_replayed_gives_the_same_verdicts(act):
    draw = random.Random(3)
    level = falling() + [1.0 + step / 300 for step in range(300)] + [1.0] * 100 + [1.8] * 200
    losses = [8.0 if draw.random() < 0.02 and step < 250 else one for step, one in enumerate(noisy(level))]
    rows = [
        {"step": step + 1, "loss": loss, "grad_norm": draw.lognormvariate(0, 1)} for step, loss in enumerate(losses)
    ]
    rows = [json.loads(json.dumps(row)) for row in rows]
    config = DivergenceConfig(act=act, grad_norm=30.0)
    guard = DivergenceMonitor(config, warmup=30)
    whole = [guard.see(row["step"] - 1, row["loss"], row["grad_norm"]) for row in rows]
    assert sum(found is not None and found.since is None for found in whole) > 2
    assert sum(found is not None and found.since is not None for found in whole) >= 1
    for stop in (1, 40, 233, 420, 500, 700):
        resumed = DivergenceMonitor(config, warmup=30)
        resumed.replay(rows[:stop])
        assert [resumed.see(row["step"] - 1, row["loss"], row["grad_norm"]) for row in rows[stop:]] == whole[stop:]


def spiky(short, act):
    return short.override(f"divergence.act={act}", "divergence.window=4", "stages.0.steps=14", "checkpoints.every=5")


def finding(monkeypatch, found, *steps):
    """The guard finds this at these steps of a run."""
    see = DivergenceMonitor.see
    seen = []

    def seeing(self, step, loss, grad_norm):
        seen.append(loss)
        return found if len(seen) in steps else see(self, step, loss, grad_norm)

    monkeypatch.setattr(DivergenceMonitor, "see", seeing)


SPIKE, RISE = Finding("a made-up spike"), Finding("a made-up rise", since=7)


@pytest.mark.parametrize("act", ["report", "skip", "rewind"])
def test_a_spike_is_said_skipped_or_gone_back_from(short, tmp_path, act, monkeypatch):
    finding(monkeypatch, SPIKE, 12)
    Trainer(spiky(short, act), tmp_path / act, QUIET).train()
    rows = read_log(tmp_path / act / "log.jsonl")
    assert [bool(row["spike"]) for row in rows] == [step == 12 for step in range(1, 15)]
    assert {"report": "learned", "skip": "skipped", "rewind": "back"}[act] in rows[11]["spike"]


@pytest.mark.parametrize("found", [SPIKE, RISE])
def test_a_finding_may_stop_the_run_with_the_state_before_it(short, tmp_path, monkeypatch, found):
    finding(monkeypatch, found, 12)
    trainer = Trainer(spiky(short, "stop"), tmp_path, QUIET)
    with pytest.raises(DivergedError, match=rf"step 12 looks like divergence \({found.said}\)"):
        trainer.train()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir())[-1] == "step-000011"
    Trainer(spiky(short, "report"), tmp_path, QUIET).train()
    assert [row["total_step"] for row in read_log(tmp_path / "log.jsonl")] == list(range(1, 15)), "as it advises"


def test_a_run_that_would_skip_all_the_rest_ends(short, tmp_path, monkeypatch):
    """The window stays as it was before a spike, so a loss at a new level would be skipped for ever."""
    monkeypatch.setattr("lorgnette.train.divergence.MOST_SKIPS", 3)
    monkeypatch.setattr(DivergenceMonitor, "_spike", lambda self, *_: "a new level" if len(self._losses) > 3 else None)
    run = spiky(short, "skip").override("stages.0.warmup=0")
    with pytest.raises(DivergedError, match=r"step 8 would be skipped after 3 others in a row \(a new level\)"):
        Trainer(run, tmp_path, QUIET).train()
    assert [bool(row["spike"]) for row in read_log(tmp_path / "log.jsonl")] == [False] * 4 + [True] * 3
    with pytest.raises(DivergedError, match="step 8 would be skipped"):  # the log is replayed
        Trainer(run, tmp_path, QUIET).train()


@pytest.mark.parametrize(("found", "act"), [(RISE, "report"), (RISE, "skip"), (SPIKE, "report")])
def test_what_is_reported_is_learned_from(short, tmp_path, monkeypatch, found, act):
    plain = Trainer(spiky(short, act), tmp_path / "plain", QUIET).train()
    finding(monkeypatch, found, 12)
    console = Console(record=True, file=open("/dev/null", "w"), width=300)  # noqa: SIM115
    model = Trainer(spiky(short, act), tmp_path / "run", console).train()
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in plain.named_parameters())
    said = f"{found.said}: learned all the same"
    assert read_log(tmp_path / "run" / "log.jsonl")[11]["spike"] == said
    assert f"step 12: {said}" in console.export_text()


@pytest.mark.parametrize(("found", "restored"), [(SPIKE, "step-000010"), (RISE, "step-000005")])
def test_a_rise_is_gone_back_from_to_before_it(short, tmp_path, monkeypatch, found, restored):
    finding(monkeypatch, found, 12)
    taken = []
    restore = divergence.restore
    monkeypatch.setattr(divergence, "restore", lambda path, *rest: [taken.append(path.name), restore(path, *rest)])
    Trainer(spiky(short, "rewind"), tmp_path, QUIET).train()
    assert taken == [restored]
    finding(monkeypatch, Finding("an early rise", since=2), 12)
    Trainer(spiky(short, "rewind"), tmp_path / "early", QUIET).train()
    assert taken[1:] == ["step-000005"], "the oldest that is kept, where none is from before the rise"


@pytest.mark.parametrize("act", ["report", "rewind"])
def test_a_run_that_is_resumed_finds_the_same_rises(short, tmp_path, monkeypatch, act):
    monkeypatch.setattr("lorgnette.train.divergence.RISE_ERRORS", 0.0)  # else so short a run has none
    run = spiky(short, act).override("stages.0.steps=12", "stages.0.lr=3.0", "divergence.rise=0.001")
    run = run.override("divergence.loss=99", "divergence.grad_norm=1e9")
    whole = Trainer(run, tmp_path / "whole", QUIET).train()
    with pytest.raises(Interrupted):
        Trainer(run, tmp_path / "run", QUIET, callbacks=[StopAfter(5)]).train()
    resumed = Trainer(run, tmp_path / "run", QUIET).train()
    found = [[row["spike"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("whole", "run")]
    assert any("a slow rise" in said for said in found[0][5:]) and found[0] == found[1]
    assert all(torch.equal(p, resumed.get_parameter(name)) for name, p in whole.named_parameters())


def test_a_run_that_always_goes_back_to_the_same_weights_gives_up(short, tmp_path, monkeypatch):
    finding(monkeypatch, SPIKE, *range(12, 99))
    run = spiky(short, "rewind").override("stages.0.steps=30", "checkpoints.every=5")
    with pytest.raises(DivergedError, match="went back to the weights of step 10 3 times"):
        Trainer(run, tmp_path, QUIET).train()
    assert len(read_log(tmp_path / "log.jsonl")) == 14
