"""Benchmarks during training: reported, stored, the best model kept, and no weight changed by them."""

from __future__ import annotations

import errno
import io

import pytest
import torch
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.eval.task import truth_of
from lorgnette.files import explain_disk
from lorgnette.hub.load import load
from lorgnette.train import evaluation
from lorgnette.train.adapters.peft import merge_adapters
from lorgnette.train.callbacks import Callback
from lorgnette.train.checkpoint.resume import model_at
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Interrupted, Trainer

QUIET = Console(quiet=True)
EVALUATED = ["evaluation={every: 4, questions: 4, batch_size: 3, max_tokens: 2}", "checkpoints.keep=9"]
ADAPTED = ["stages.1.language.mode=dora", "stages.1.vision.mode=lora", "stages.1.lora.rank=2"]


def same(ours, theirs) -> bool:
    theirs = dict(theirs.named_parameters())
    return all(torch.equal(parameter, theirs[name]) for name, parameter in ours.named_parameters())


class Knowing(evaluation.LorgnetteModel):
    """Knows every answer at one step, and nothing at others."""

    step = 0

    def generate(self, samples, *, max_tokens, stop=()):
        super().generate(samples, max_tokens=1, stop=stop)
        known = self.identity.endswith(f" step {self.step}")
        return [truth_of(sample).answers[0] if known else "?" for sample in samples]


def test_scores_are_told_and_the_model_with_the_best_is_kept(tiny, tmp_path, monkeypatch):
    plain = Trainer(tiny.override(*ADAPTED), tmp_path / "plain", QUIET).train()
    monkeypatch.setattr(evaluation, "LorgnetteModel", Knowing)
    monkeypatch.setattr(Knowing, "step", 9)
    run = tiny.override(*EVALUATED, *ADAPTED, "checkpoints.every=4")
    folder = tmp_path / "run"
    told = []

    class Told(Callback):
        def on_evaluation(self, run, state, kind, values):
            told.append((state.progress.total_step, values["drawings"]))

        def on_run_end(self, run, state):
            told.append("closed")

    trained = Trainer(run, folder, QUIET, callbacks=[Told()]).train()
    assert same(trained, plain), "evaluating moves no weight"
    rows = read_log(folder / "evaluation.jsonl")
    assert [(row["total_step"], row["scores"]["drawings"]) for row in rows] == [(4, 0), (5, 0), (9, 100), (11, 0)]
    assert told == [*((row["total_step"], row["scores"]["drawings"]) for row in rows), "closed"]
    assert (folder / "evaluation" / "step-000009" / "drawings" / "summary.json").is_file()
    best = model_at(folder / "checkpoints" / "step-000009", run, run.stages[1])
    merge_adapters(best)
    assert same(load(folder / "best")[0], best)
    assert not same(best, trained)


def test_a_run_that_evaluates_goes_on_as_if_it_had_not_stopped(tiny, tmp_path, monkeypatch):
    run = tiny.override(*EVALUATED)
    whole = Trainer(run, tmp_path / "whole", QUIET).train()
    scores, killed_at = evaluation.Evaluation.scores, [4, 9]

    def killed(self, model, stage, total_step, console):
        if total_step in killed_at:  # once each
            killed_at.remove(total_step)
            raise KeyboardInterrupt
        return scores(self, model, stage, total_step, console)

    monkeypatch.setattr(evaluation.Evaluation, "scores", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Trainer(run, tmp_path / "run", QUIET).train()
    assert same(Trainer(run, tmp_path / "run", QUIET).train(), whole)
    for name in ("evaluation.jsonl", "best/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("where", ["evaluate", "save"])
def test_a_disk_that_takes_no_answers_or_no_best_model_ends_no_run(tiny, tmp_path, monkeypatch, where):
    plain = Trainer(tiny, tmp_path / "plain", QUIET).train()
    meant, asked = getattr(evaluation, where), []

    def full_once(*arguments, **options):
        asked.append(1)
        if len(asked) == 1:
            with explain_disk(tmp_path):
                raise OSError(errno.ENOSPC, "no space")
        return meant(*arguments, **options)

    monkeypatch.setattr(evaluation, where, full_once)
    console = Console(record=True, file=io.StringIO(), width=300)
    trained = Trainer(tiny.override(*EVALUATED), tmp_path / "run", console).train()
    assert same(trained, plain) and len(asked) > 1
    assert "the disk is full; free some space; training continues" in " ".join(console.export_text().split())
    assert [row["total_step"] for row in read_log(tmp_path / "run" / "evaluation.jsonl")] == [5, 9, 11]
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()


def test_results_of_other_settings_in_its_folder_end_no_run(tiny, tmp_path):
    """As an older lorgnette leaves them, which scored by another metric."""
    stored = tmp_path / "evaluation" / "step-000004" / "drawings" / "settings.json"
    stored.parent.mkdir(parents=True)
    stored.write_text('{"metric": "vqa_accuracy", "task": "drawings"}')
    console = Console(record=True, file=io.StringIO(), width=300)
    run = tiny.override(*EVALUATED)
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    Trainer(run, tmp_path, console).train()
    assert "step 4: drawings is not scored, and training continues" in " ".join(console.export_text().split())


def test_an_evaluation_that_was_cut_off_goes_on_in_a_run_that_saves_more_often(tiny, tmp_path, monkeypatch):
    """Its answers are those of the same model."""
    run = tiny.override(*EVALUATED)
    assert run.identity == run.override("checkpoints.every=3").identity != run.override("seed=1").identity
    generate, asked = evaluation.LorgnetteModel.generate, []

    def cut_off(self, samples, **options):
        asked.append(len(samples))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(self, samples, **options)

    monkeypatch.setattr(evaluation.LorgnetteModel, "generate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        Trainer(run, tmp_path, QUIET).train()
    Trainer(run.override("checkpoints.every=3"), tmp_path, QUIET).train()
    assert asked[:3] == [3, 1, 1], "one question of four was left"
    assert [row["total_step"] for row in read_log(tmp_path / "evaluation.jsonl")] == [4, 5, 9, 11]


def test_without_best_and_with_a_limit_of_time(tiny, tmp_path):
    run = tiny.override(*EVALUATED, "evaluation.keep_best=false", "evaluation.every=1")
    with pytest.raises(Interrupted):
        Trainer(run, tmp_path, QUIET, limit_s=0).train()
    assert [row["total_step"] for row in read_log(tmp_path / "evaluation.jsonl")] == [1]
    assert not (tmp_path / "best").exists()


def test_a_task_that_there_is_not_is_named_before_the_first_step(tiny, tmp_path):
    with pytest.raises(SettingsError, match=r"'drawing'; did you mean 'drawings'\? There are: drawings"):
        Trainer(tiny.override("evaluation.every=2", "evaluation.tasks=[drawing]"), tmp_path, QUIET).train()
    assert not read_log(tmp_path / "log.jsonl")
