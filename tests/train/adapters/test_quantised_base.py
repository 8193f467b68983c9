"""Adapters in float over a base in 8 bits (QLoRA's way), held to the same adapters over the float weights it means."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lorgnette.errors import SettingsError
from lorgnette.hub.load import load
from lorgnette.model.adapted_layers import Int8Linear, round_layers
from lorgnette.model.ops.int8_product import dequantised_product, plain_dequantised_product, quantise_rows
from lorgnette.model.vlm import VLM
from lorgnette.run import LoraConfig, Run
from lorgnette.train.adapters.peft import add_adapters, float_base
from lorgnette.train.loop import Interrupted, Trainer
from lorgnette.train.planner.memory import Trace, estimate
from lorgnette.train.stages import prepare_parts
from tests.train.adapters.test_fused_lora import Part
from tests.train.planner.test_memory import first_pack
from tests.train.watchers import StopAfter

QUIET = Console(quiet=True)


def quantised(tiny: Run, mode: str = "lora", *more: str) -> Run:
    """The tiny run, whose second stage holds the decoder in 8 bits."""
    return tiny.override(
        f"stages.1.language={{mode: {mode}, quantize: int8}}", "stages.1.lora={rank: 2, dropout: 0}",
        "stages.1.lr=0.02", *more,
    )  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
def test_the_product_and_its_gradients_are_those_of_the_plain_version(bias: bool) -> None:
    rounded, steps = quantise_rows(torch.randn(10, 6))
    found = []
    for product in (dequantised_product, plain_dequantised_product):
        x = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
        added = torch.linspace(0, 1, 10).requires_grad_() if bias else None
        out = product(x, rounded, steps, added)
        out.square().sum().backward()
        found.append([out.detach(), x.grad, *([added.grad] if added is not None else [])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mode", ["frozen", "lora", "dora"])
def test_losses_and_gradients_are_those_over_the_dequantised_weights(tiny: Run, mode: str) -> None:
    """The oracle is the same model, adapters included, whose layers are float again."""
    run, batch = quantised(tiny, mode), first_pack(tiny)
    model = VLM(run.model)
    model.initialise(0)
    prepare_parts(model, run.stages[1], seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    slow = copy.deepcopy(model)
    float_base(slow)
    held = [one for one in model.language.modules() if isinstance(one, Int8Linear)]
    assert held and not any(isinstance(one, Int8Linear) for one in slow.modules())
    losses = [one.train()(batch, output="loss").loss_sum for one in (model, slow)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    theirs = dict(slow.named_parameters())
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            size = 1e-5 * float(theirs[name].grad.abs().max()) + 1e-7
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=size, msg=name)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.endswith((".rounded", ".steps")) for name in trained)
    assert any(".lora_" in name for name in trained) == (mode != "frozen")


@pytest.mark.parametrize("mode", ["lora", "dora"])
def test_a_run_is_resumed_to_the_bit_and_its_adapter_is_put_on_the_float_base(
    tiny: Run, tmp_path: Path, mode: str
) -> None:
    run = quantised(tiny, mode, "stages.0.steps=1", "stages.1.steps=3", "checkpoints.every=1")
    trained = Trainer(run, tmp_path / "whole", QUIET).train()
    weights = dict(trained.named_parameters())
    assert not any(isinstance(one, Int8Linear) for one in trained.modules())
    with pytest.raises(Interrupted):
        Trainer(run, tmp_path / "stopped", QUIET, callbacks=[StopAfter(3)]).train()
    again = dict(Trainer(run, tmp_path / "stopped", QUIET).train().named_parameters())
    assert weights.keys() == again.keys()
    assert all(torch.equal(weight, again[name]) for name, weight in weights.items())
    kept = tmp_path / "whole" / "adapters" / "second"
    merged, _ = load(kept / mode)
    base = dict(load(kept / "base")[0].named_parameters())
    changed = 0
    for name, weight in merged.named_parameters():
        if name.startswith("language.layers.") and "norm" not in name:
            torch.testing.assert_close(weight, weights[name], atol=1e-6, rtol=1e-5, msg=name)
            changed += not torch.equal(weight, base[name])
    assert changed


def test_a_trace_without_memory_is_the_trace_with_it_and_weights_are_counted_in_8_bits(tiny: Run) -> None:
    batch = first_pack(tiny)
    totals = {}
    for name, run in {
        "float": tiny.override("stages.1.language.mode=lora", "stages.1.lora={rank: 2, dropout: 0}"),
        "int8": quantised(tiny),
    }.items():
        stage = run.stages[1]
        fake, real = (Trace(run, stage, batch, 2, real=real) for real in (False, True))
        assert fake.peak(0) == pytest.approx(real.peak(0), rel=0.02)
        with torch.device("meta"):
            model = VLM(run.model)
            prepare_parts(model, stage, seed=0)
        totals[name] = estimate(run, stage, model, [batch]).parts["language"].weights
        layers = [one for one in model.language.modules() if isinstance(one, Int8Linear)]
    saved = sum(3 * one.rounded.numel() - 4 * one.steps.numel() for one in layers)
    assert saved > 0
    assert totals["float"] - totals["int8"] == saved


WRONG = {
    "trained in full": (
        "stages.1.language={mode: full, quantize: int8}",
        "weights that train are not rounded",
    ),
    "the connector": ("stages.1.connector={mode: frozen, quantize: int8}", "the connector is not rounded"),
    "an unknown name": ("stages.1.language={mode: lora, quantize: int4}", "quantize"),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused(tiny: Run, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        tiny.override(override)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dora", [False, True])
def test_layers_over_integers_are_those_of_peft(bias: bool, dora: bool) -> None:
    torch.manual_seed(0)
    fast = Part(bias).requires_grad_(False)
    round_layers(fast)
    add_adapters(fast, LoraConfig(rank=2, alpha=4, dropout=0.0), dora=dora, seed=0)
    for name, parameter in fast.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3).add_(0.5 if "magnitude" in name else 0)
    slow, x = copy.deepcopy(fast), torch.randn(7, 6)
    found = [vars(module).pop("forward", None) for module in slow.modules()]
    assert sum(one is not None for one in found) == 2
    for part in (fast, slow):
        part(x).square().mean().backward()
    torch.testing.assert_close(fast(x), slow(x))
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        assert (one.grad is None) == (not one.requires_grad)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)
