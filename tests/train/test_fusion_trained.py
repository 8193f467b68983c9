"""A run with cross-attention: the decoder stays frozen, the blocks train, adapt in a later stage, and come back."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.hub.export import save
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.flops import ModelCost
from lorgnette.run import Run, find_recipe
from lorgnette.sample import Sample
from lorgnette.train.data import build_data
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.optim import build_optimiser
from lorgnette.train.setup import build
from lorgnette.train.stages import count_parts, pack_flops, prepare_parts
from lorgnette.train.step import train_step

FUSION = "model.fusion={kind: cross_attention, every: 1}"
QUIET = Console(quiet=True)


def test_blocks_train_beside_a_frozen_decoder_and_come_back_with_their_adapters(tiny, squares, tmp_path):
    run = tiny.override(
        FUSION, "stages.0.language.mode=frozen", "stages.0.fusion.lr=0.01", "stages.0.steps=12",
        "stages.1.language.mode=frozen", "stages.1.fusion.mode=lora", "stages.1.lora={rank: 2, dropout: 0}",
    )  # fmt: skip
    before = {name: tensor.clone() for name, tensor in build(run)[0].named_parameters()}
    trainer = Trainer(run, tmp_path / "run", QUIET)
    model = trainer.train()
    rows = [one for one in read_log(tmp_path / "run" / "log.jsonl") if "loss" in one]
    assert len(rows) == 18 and rows[17]["loss"] < rows[0]["loss"]
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before if "language.layers" in name)
    assert all(not torch.equal(after[name], before[name]) for name in before if name.startswith("fusion."))
    kept = tmp_path / "run" / "adapters" / "second"
    settings = json.loads((kept / "lora" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(kept / "base")
    (kept / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    merged = dict(load(kept / "lora")[0].named_parameters())
    for name in (name for name in before if name.startswith("fusion.")):
        torch.testing.assert_close(merged[name], after[name], atol=1e-6, rtol=1e-5, msg=name)
    save(model, trainer.processor, tmp_path / "model")
    again, processor = load(tmp_path / "model")
    picture = {"type": "image", "path": str(squares / "0.png")}
    asked = Sample.from_messages([{"role": "user", "content": [picture, {"type": "text", "text": "What colour?"}]}])
    settings = GenerationConfig(max_tokens=4)
    answers = [generate(one, processor, [asked], settings) for one in (model.eval(), again)]
    assert answers[0] == answers[1] and answers[0][0].tokens


def test_a_part_has_its_own_rate_and_counts(tiny):
    run = tiny.override(FUSION, "stages.0.fusion.lr=0.5", "stages.0.fusion.weight_decay=0.3")
    model, processor = build(run)
    prepare_parts(model, run.stages[0], seed=0)
    groups = [group for group in build_optimiser(model, run.stages[0]).param_groups if group["lr"] == 0.5]
    assert sorted(name for group in groups for name in group["names"]) == sorted(
        name for name, _ in model.named_parameters() if name.startswith("fusion.")
    )
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    counts = {one.part: one for one in count_parts(model, run.stages[0])}
    width, inner, kv, mlp, heads = 16, 16, 8, 32, 8
    block = 2 * width * inner + 2 * width * kv + 3 * width * mlp + 2 * width + 2 * heads + 2
    assert counts["fusion"].parameters == counts["fusion"].trainable == 2 * block
    assert [*counts] == ["vision", "connector", "fusion", "language", "extra_vocabulary"]
    assert "fusion" not in {one.part for one in count_parts(build(tiny)[0], tiny.stages[0])}
    cost, batch = ModelCost(run.model), next(b for b in build_data(run, 0, processor).part(0, 0) if len(b.images))
    assert cost.fusion_flops(batch) > 0 and pack_flops(cost, run.stages[0], batch) > cost.fusion_flops(batch)


def test_the_first_step_reaches_gates_alone_and_the_next_all_of_a_block(tiny):
    model, processor = build(tiny.override(FUSION))
    stage = tiny.stages[0]
    optimiser, steps = build_optimiser(model, stage), build_data(tiny.override(FUSION), 0, processor)
    reached = []
    for step in range(2):
        train_step(model, steps.batches(step), optimiser, max_grad_norm=1.0)
        blocks = model.fusion.named_parameters()
        reached.append({name.rpartition(".")[2] for name, p in blocks if p.grad is not None and p.grad.any()})
    assert reached == [{"attention_gate", "mlp_gate"}, {"attention_gate", "mlp_gate", "weight"}]


def test_blocks_are_held_to_the_decoder_that_comes_with_the_weights(tiny):
    joined = {"init": {"vision": "a", "language": "b"}, "model": {"fusion": {"kind": "cross_attention", "every": 5}}}
    values = {name: value for name, value in tiny.plain().items() if name in ("name", "stages")}
    assert not Run.parse(values | joined).has_sizes
    with pytest.raises(SettingsError, match="for every 5 layers, from layer 0 on, does not fit a decoder of 32 layers"):
        Run.parse(values | {"model": joined["model"]})


def test_a_group_of_images_is_refused_where_tags_stand_between_them(tiny):
    cut = ("images.policy=tiles", "images.split=true", "images.resample=lanczos", "images.longest=112")
    group = "model.fusion={kind: cross_attention, every: 1, sees: group}"
    with pytest.raises(SettingsError, match="sees group joins images that stand side by side"):
        tiny.override(group, *cut)
    assert tiny.override(group.replace("group", "all"), *cut).model.fusion.sees == "all"


def test_the_recipe_takes_steps_beside_frozen_backbones_and_answers(tmp_path):
    run = Run.load(find_recipe("cross_attention"))
    stage = run.plain()["stages"][0]
    pack = {"tokens": 256, "patches": 256, "packs_per_step": 1}
    stage |= {"steps": 2, "pack": pack, "sources": [one for one in stage["sources"] if one["kind"] == "pairs"]}
    trainer = Trainer(Run.parse(run.plain() | {"stages": [stage], "loader": {"workers": 0}}), tmp_path / "run", QUIET)
    model = trainer.train()
    assert len([one for one in read_log(tmp_path / "run" / "log.jsonl") if "loss" in one]) == 2
    gates = [parameter for name, parameter in model.named_parameters() if name.endswith("_gate")]
    assert len(gates) == 8 and all(gate.abs().sum() > 0 for gate in gates)
    asked = Sample.from_messages([{"role": "user", "content": "What do you see?"}])
    assert generate(model.eval(), trainer.processor, asked, GenerationConfig(max_tokens=3))[0].tokens


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["stages.0.fusion.mode=frozen"], "'first': fusion is set, but autoregressive fusion has no weights"),
        (["stages.1.checkpointing=[fusion]"], "'second': fusion is set, but"),
        ([FUSION, "stages.0.fusion.mode=frozen"], "the fusion is newly initialised, and frozen it would stay"),
        ([FUSION, "stages.0.fusion.mode=lora"], r"set fusion\.mode to full"),
    ],
)
def test_settings_of_blocks_that_are_not_there_or_never_train_are_refused(tiny, settings, said):
    with pytest.raises(SettingsError, match=said):
        tiny.override(*settings)
