"""Starting points of a run, export of its adapters, and its messages."""

from __future__ import annotations

import sys
import types
from typing import get_args

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import lorgnette.cli.train as verb
from lorgnette.cli import app
from lorgnette.errors import SettingsError
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.run import Projection
from lorgnette.train.adapters.neftune import Neftune
from lorgnette.train.callbacks import Callback
from lorgnette.train.checkpoint.debug_step import load_batches, replay, save_batches
from lorgnette.train.checkpoint.resume import open_unfinished
from lorgnette.train.data import build_data, stage_processor
from lorgnette.train.logging.log import read_log
from lorgnette.train.logging.trackers import open_trackers
from lorgnette.train.loop import Trainer, train
from lorgnette.train.optim import build_optimiser
from lorgnette.train.parallel import start_distributed
from lorgnette.train.setup import build, resolve
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import NotFiniteError, train_step
from lorgnette.train.validation import Validation
from tests.train.watchers import OnStep

QUIET = Console(quiet=True)
ALL = get_args(Projection)
ADAPTED = [
    "stages.0.vision.mode=dora",
    "stages.0.language.mode=dora",
    "stages.0.lora.rank=2",
    "stages.0.lora.unfreeze=[norms, patches]",
    "stages.0.lora.dropout=0.0",
    "stages.0.lr=0.02",
]


@pytest.mark.parametrize("mode", ["dora", "lora"])
def test_adapters_open_in_peft_on_the_exported_base_and_equal_the_merged_model(tiny, tmp_path, mode):
    import peft
    import transformers

    # the second stage trains everything, and here nothing: its model is that of the end of the first
    run = tiny.override(*ADAPTED, "stages.1.steps=1", "stages.1.lr=1e-12", f"stages.0.lora.targets=[{', '.join(ALL)}]")
    run = run.override(f"stages.0.vision.mode={mode}", f"stages.0.language.mode={mode}")
    trainer = Trainer(run, tmp_path / "run", QUIET)
    first = trainer.train()
    folder = tmp_path / "run" / "adapters" / "first"
    assert {path.name for path in (folder / mode).iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    base = transformers.AutoModelForImageTextToText.from_pretrained(folder / "base", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, folder / mode).merge_and_unload()
    opened = peft.AutoPeftModel.from_pretrained(folder / mode, dtype=torch.float32).merge_and_unload().state_dict()
    assert all(torch.equal(tensor, opened[name]) for name, tensor in adapted.state_dict().items()), "by what it names"
    moved = (tmp_path / "run").rename(tmp_path / "moved") / "adapters" / "first"
    again = dict(load(moved / mode)[0].named_parameters())
    assert all(torch.allclose(tensor, again[name], atol=1e-6) for name, tensor in first.named_parameters())
    folder = moved
    export(first, trainer.processor, tmp_path / "merged")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    ours = dict(theirs.named_parameters())
    assert dict(adapted.named_parameters()).keys() == ours.keys()
    for name, parameter in adapted.named_parameters():
        torch.testing.assert_close(parameter, ours[name], atol=1e-6, rtol=1e-5, msg=name)
    plain = dict(load(folder / "base")[0].named_parameters())
    moved = [name for name, p in first.named_parameters() if not torch.allclose(p, plain[name], atol=1e-4)]
    assert {"language.layers.1.attention.query.weight", "language.head.table"} <= set(moved), "what is adapted changes"


def test_what_lora_unfreezes_trains_beside_the_adapters(tiny):
    stage = tiny.override(*ADAPTED, "stages.0.lora.targets=[query]").stages[0]
    model, _ = build(tiny)
    prepare_parts(model, stage, seed=0)
    trained = {name for name, parameter in model.vision.named_parameters() if parameter.requires_grad}
    assert {"patch_embedding.weight", "position_embedding.weight", "norm.bias", "layers.0.mlp_norm.weight"} <= trained
    assert "layers.0.attention.query.lora_A.default.weight" in trained
    assert not [name for name in trained if "key" in name or "mlp.up" in name]
    with pytest.raises(SettingsError, match="name no linear layer of the part"):
        prepare_parts(build(tiny)[0], tiny.override(*ADAPTED, "stages.0.lora.targets=[gate]").stages[0], seed=0)


def test_a_run_starts_from_a_model_folder_and_takes_its_sizes(tiny, tmp_path):
    model, processor = build(tiny.override("seed=5"))
    save(model, processor, tmp_path / "model")
    values = tiny.plain() | {"init": {"model": str(tmp_path / "model")}}
    for name in ("model", "images", "tokenizer"):
        values.pop(name)
    run = type(tiny).parse(values)
    started, _ = build(run)
    assert resolve(run).model == tiny.model
    for name, parameter in started.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
    again = tiny.override(f"init.model={tmp_path / 'model'}", "model.language.norm_eps=0.001")
    with pytest.raises(SettingsError, match=r"does not fit the run's model settings.*norm_eps"):
        build(again)


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    Trainer(tiny, folder, QUIET).train()
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("stages.0.longest=64", "exceeds the position table"),
        ("stages.1.name=first", "two stages share a name"),
        ("stages.0.pack={tokens: 99999}", r"set pack.tokens to 32768 or less"),
        ("init.vision=somewhere", "give init.language too"),
        ("init={model: a, vision: b, language: c}", "leave out init.vision"),
        ("stages.0.betas=[0.9, 1.0]", r"stages\.0\.betas\.1: Input should be less than 1"),
        ("stages.0.name=../first", "files are named after it"),
        (
            "stages.0.connector.mode=frozen",
            r"override: stage 'first': the connector is newly initialised.*\(init\.model\)$",
        ),
    ],
)
def test_impossible_settings_say_what_to_change(tiny, change, said):
    with pytest.raises(SettingsError, match=said):
        tiny.override(change)


def test_images_are_sized_by_the_stage(tiny):
    _, processor = build(tiny)
    run = tiny.override("stages.0.longest=16")
    assert stage_processor(processor, run, run.stages[0]).images.longest == 16
    assert stage_processor(processor, run, run.stages[1]) is processor


def test_noise_is_for_training_and_as_strong_as_it_should_be(tiny):
    model, processor = build(tiny)
    batch = build_data(tiny, 0, processor).batches(0)[0]
    table = model.language.embedding.table.detach()
    seen = []
    handle = model.language.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with Neftune(model, 5.0), torch.no_grad():
        for training in (True, False):
            model.train(training)(batch)
    handle.remove()
    model.train()(batch)
    text = (batch.tokens_T < len(table)).nonzero()[:, 0]
    noise = (seen[0][text] - table[batch.tokens_T[text]]).abs()
    lengths = torch.repeat_interleave(torch.tensor(batch.documents.lengths), torch.tensor(batch.documents.lengths))
    bound = 5 / (lengths[text] * table.shape[1]).sqrt()
    assert (noise <= bound[:, None] * 1.001).all() and noise.mean() > 0.3 * bound.mean()
    assert torch.equal(seen[1][text], table[batch.tokens_T[text]]), "none in evaluation"


def test_losses_are_told_by_source_and_on_unseen_samples(short, squares, tmp_path):
    source = {"kind": "chat", "path": str(squares / "rows.jsonl")}
    run = type(short).parse(short.plain() | {"validation": {"every": 3, "samples": 9, "sources": [source]}})
    plain = Trainer(short, tmp_path / "plain", QUIET).train()
    model = Trainer(run, tmp_path / "run", QUIET).train()
    rows = read_log(tmp_path / "run" / "log.jsonl")
    title = f"chat {source['path']}"
    assert all(row["sources"] == {title: pytest.approx(row["loss"])} for row in rows)
    validated = read_log(tmp_path / "run" / "validation.jsonl")
    assert [row["total_step"] for row in validated] == [3, 5]
    assert all(0 < row["losses"][title] < 10 for row in validated)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), "validating changes nothing"


def test_losses_with_the_images_of_other_samples(short, squares):
    source = {"kind": "chat", "path": str(squares / "rows.jsonl")}
    run = type(short).parse(short.plain() | {"validation": {"every": 3, "samples": 9, "sources": [source]}})
    model, processor = build(run)
    right, wrong = (
        Validation(run, run.stages[0], processor, start_distributed(), shuffled=shuffled) for shuffled in (False, True)
    )
    losses = [one.losses(model)[f"chat {source['path']}"] for one in (right, wrong, right)]
    assert losses[0] == losses[2] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.2)


def test_a_step_that_is_not_finite_is_kept_and_can_be_computed_again(tiny, tmp_path):
    trainer = Trainer(tiny, tmp_path, QUIET)
    with torch.no_grad():
        trainer.model.language.norm.weight[0] = float("inf")
    with pytest.raises(NotFiniteError, match=r"train --replay .*step-000001"):
        trainer.train()
    console = Console(record=True, file=open("/dev/null", "w"), width=200)  # noqa: SIM115
    broken = replay(tmp_path / "replay" / "step-000001", console)
    assert len(broken) == 4
    assert "1 weights are not finite (language.norm.weight first)" in console.export_text()
    assert CliRunner().invoke(app, ["train", str(tmp_path / "replay" / "step-000001"), "--replay"]).exit_code == 0


def test_a_full_disk_hides_no_step_that_is_not_finite(tiny, tmp_path):
    trainer = Trainer(tiny, tmp_path, QUIET)
    (tmp_path / "replay").write_text("a file, where a folder should be")
    with torch.no_grad():
        trainer.model.language.norm.weight[0] = float("inf")
    with pytest.raises(NotFiniteError, match=r"row \d+.*; the step is not kept to be looked at: .*cannot be written"):
        trainer.train()


def test_batches_come_back_as_they_were(tiny, tmp_path):
    _, processor = build(tiny)
    batches = build_data(tiny, 1, processor).batches(0)
    save_batches(tmp_path / "batches.safetensors", batches)
    for ours, theirs in zip(load_batches(tmp_path / "batches.safetensors"), batches, strict=True):
        for name, value in vars(theirs).items():
            if name in ours.__dataclass_fields__:
                same = (
                    torch.equal(getattr(ours, name), value) if hasattr(value, "dtype") else getattr(ours, name) == value
                )
                assert same, name


def test_callbacks_are_told_of_each_event(short, squares, tmp_path):
    seen = []

    class Watcher(Callback):
        def on_run_begin(self, run, state):
            seen.append(("begin", state.progress.total_step))

        def on_step_end(self, run, state, metrics):
            assert state.progress.total_step == metrics.total_step and state.step_seconds > 0
            assert state.stage == run.stages[0] and state.folder == tmp_path
            seen.append(("step", metrics.total_step))

        def on_evaluation(self, run, state, kind, values):
            seen.append((kind, state.progress.total_step))
            assert all(value >= 0 for value in values.values())

        def on_checkpoint(self, run, state, path):
            assert (path / "progress.json").is_file()
            seen.append(("checkpoint", int(path.name[5:])))

        def on_run_end(self, run, state):
            seen.append(("end", state.progress.total_step))

    validated = {"every": 4, "sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}]}
    run = type(short).parse(short.plain() | {"checkpoints": {"every": 2}, "validation": validated})
    model = train(run, tmp_path, QUIET, callbacks=[Watcher()])
    assert torch.equal(load(tmp_path / "model")[0].language.embedding.table, model.language.embedding.table)
    assert [one for one in seen if one[0] != "checkpoint"] == [
        ("begin", 0), *(("step", n) for n in range(1, 5)), ("validation", 4), ("step", 5), ("validation", 5), ("end", 5)
    ]  # fmt: skip
    assert [step for kind, step in seen if kind == "checkpoint"] == [2, 4, 5]


def test_curves_are_drawn(finished):
    done = CliRunner().invoke(app, ["train", str(finished), "--plot"])
    assert done.exit_code == 0 and f"Wrote {finished / 'curves.svg'}" in "".join(done.output.splitlines())
    text = (finished / "curves.svg").read_text()
    assert text.startswith("<svg") and "xmlns" in text and text.count("<polyline") >= 6
    with pytest.raises(SettingsError, match=r"has no log\.jsonl with steps to draw"):
        verb.plot(finished / "nothing")


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_figures_go_to_trackers(short, tmp_path, name, monkeypatch):
    told = []

    class Writer:
        def __init__(self, folder):
            told.append(folder)

        def add_text(self, *_):
            pass

        def add_scalar(self, key, value, step):
            told.append((step, {key: value}))

        def close(self):
            told.append("closed")

    fake = types.SimpleNamespace(
        init=lambda **settings: told.append(settings),
        log=lambda values, step: told.append((step, values)),
        finish=lambda: told.append("closed"),
        SummaryWriter=Writer,
    )
    for module in (name, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, fake)
    trackers = open_trackers([name], short, tmp_path)
    Trainer(short, tmp_path, QUIET, callbacks=trackers).train()
    losses = [values["loss"] for step, values in (one for one in told if isinstance(one, tuple)) if "loss" in values]
    assert losses == [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    assert told[-1] == "closed"


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_there_is_named(short, tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    (tmp_path / "run.yaml").write_text(short.to_yaml())
    folder = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--folder", str(folder), "--log", name])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception) == f"--log {name}: is not installed; run `pip install {name}`"
    assert not (folder / "log.jsonl").exists()
    with pytest.raises(SettingsError, match="use one of tensorboard, wandb, trackio"):
        open_trackers([name, "mlflow"], short, tmp_path)


def test_packed_and_separate_samples_give_the_same_update(tiny):
    from lorgnette.data.loader.batches import split_evenly

    gradients = []
    for packs in (1, 2, 4, 8):
        run = tiny.override("stages.0.pack.samples=8", f"stages.0.micro_batches={packs}")
        model, processor = build(run)
        prepare_parts(model, run.stages[0], seed=0)
        optimiser = build_optimiser(model, run.stages[0])
        batches = build_data(run, 0, processor).batches(0)
        assert len(batches) == packs
        train_step(model, batches, optimiser, max_grad_norm=1e9)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        for other in gradients[1:]:
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert split_evenly([], 2) == [[], []]


def test_half_precision_learns_and_keeps_weights_whole(short, tmp_path):
    from lorgnette.train.parallel import end_distributed

    run = short.override(*ADAPTED[:2], f"stages.0.lora={{rank: 2, targets: [{', '.join(ALL)}]}}")
    asked = "evaluation={every: 100, questions: 4, max_tokens: 2}"
    try:
        model = Trainer(run.override("precision=bf16", asked), tmp_path / "half", QUIET).train()
    finally:
        end_distributed()
    Trainer(run, tmp_path / "whole", QUIET).train()
    half, whole = (read_log(tmp_path / name / "log.jsonl") for name in ("half", "whole"))
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in whole], rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for other in (load(tmp_path / "half" / "best")[0], open_unfinished(tmp_path / "half")[0]):
        for name, parameter in other.named_parameters():
            assert torch.equal(parameter, model.get_parameter(name)), name


def test_compiled_layers_give_the_same_losses_and_no_batch_compiles_anew(short, tmp_path, monkeypatch):
    import torch._dynamo

    from lorgnette.train.parallel import span_readers

    for module, name in span_readers():
        monkeypatch.setattr(module, name, getattr(module, name))  # put back after the test
    callers = {(module.__name__.removeprefix("lorgnette.model."), name) for module, name in span_readers()}
    assert callers >= {
        ("vision", "attention"), ("language", "attention"), ("language", "attention_of_rows"), ("fusion", "attention"),
        ("connectors.perceiver", "attention"), ("connectors.perceiver", "interleave"),
        ("connectors.mapping_network", "attention"), ("connectors.mapping_network", "interleave"),
    }  # fmt: skip
    compile_, graphs = torch.nn.Module.compile, []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compile_(self, backend=backend, **how))
    torch._dynamo.reset()
    counts = []
    run = short.override("stages.0.steps=12", "model.language.layers=1")
    keep = OnStep(lambda *_: counts.append(len(graphs)))
    Trainer(run.override("compile=true"), tmp_path / "compiled", QUIET, callbacks=[keep]).train()
    assert counts[-1] == counts[-10] > 0, "lengths of later batches compile nothing"
    Trainer(run, tmp_path / "plain", QUIET).train()
    ours, theirs = (read_log(tmp_path / name / "log.jsonl") for name in ("compiled", "plain"))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)
