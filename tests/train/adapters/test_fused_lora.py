"""Layers with LoRA and DoRA compute by fewer products what PEFT computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lorgnette.model.layers import Stack
from lorgnette.run import LoraConfig
from lorgnette.train.adapters import fused_lora as lora
from lorgnette.train.adapters.fused_lora import adapted_weight, fewer_products, weights_kept
from lorgnette.train.adapters.peft import add_adapters, merge_adapters


class Part(Stack):
    """Two layers, the first without gradient for what comes in."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"up": nn.Linear(6, 10, bias), "down": nn.Linear(10, 4, bias)})])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        [layer] = self.layers
        return layer["down"](layer["up"](x).relu())


def adapted(bias: bool, dropout: float = 0.0, dora: bool = False, rank: int = 1) -> Part:
    torch.manual_seed(0)
    part = Part(bias).requires_grad_(False)
    add_adapters(part, LoraConfig(rank=rank, alpha=2 * rank, dropout=dropout), dora=dora, seed=0)
    for name, parameter in part.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3).add_(0.5 if "magnitude" in name else 0)
    return part


def is_fast(part: Part) -> bool:
    return any("forward" in vars(module) for module in part.modules())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
def test_adapted_layers_are_those_of_peft(bias: bool, dora: bool, rank: int) -> None:
    """By the products of either rank: without the whole gradient of the weight, and with it."""
    fast = adapted(bias, dora=dora, rank=rank)
    assert {fewer_products(*sizes, rank) for sizes in ((10, 6), (4, 10))} == {rank == 3}
    slow = copy.deepcopy(fast)
    for module in slow.modules():
        vars(module).pop("forward", None)
    assert is_fast(fast)
    assert not is_fast(slow)
    x = torch.randn(17, 6)
    found, right = fast(x), slow(x)
    torch.testing.assert_close(found, right)
    for out in (found, right):
        out.square().mean().backward()
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        assert one.requires_grad == other.requires_grad
        if one.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
def test_weights_are_kept_within_a_step_and_no_longer(dora: bool, rank: int, monkeypatch) -> None:
    """The two passes of a step make each of two adapted weights once; the next step makes them anew."""
    part, made = adapted(bias=True, dora=dora, rank=rank), []
    monkeypatch.setattr(lora, "adapted_weight", lambda *parts: made.append(1) or adapted_weight(*parts))
    packs, trained = torch.randn(2, 7, 6), [one for one in part.parameters() if one.requires_grad]

    def step() -> None:
        for pack in packs:
            part(pack).square().sum().backward()

    def gradients() -> list[torch.Tensor]:
        found = [one.grad for one in trained]
        for one in trained:
            one.grad = None
        return found

    for _ in range(2):
        step()
        right, often = gradients(), len(made)
        with weights_kept(part) as weights:
            step()
        assert len(weights) == (2 if rank == 3 else 0)
        kept = gradients()
        assert (often, len(made)) == (4, 4 + 2)
        for one, other in zip(kept, right, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            assert rank == 3 or torch.equal(one, other)
            assert one.stride() == other.stride()
        with torch.no_grad():
            for one in trained:
                one.mul_(1.5)
        made.clear()
    assert not any("made" in vars(module) for module in part.modules())


def test_checkpointed_parts_keep_no_weights() -> None:
    part = adapted(bias=True)
    part.checkpointed = True
    with weights_kept(part):
        assert not any("made" in vars(module) for module in part.modules())


def test_a_copy_computes_with_its_own_weights() -> None:
    part = adapted(bias=True)
    other, x = copy.deepcopy(part), torch.randn(5, 6)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not other(x).any()
    assert part(x).any()


@pytest.mark.parametrize("dora", [False, True])
def test_merged_layers_compute_the_same(dora: bool) -> None:
    part, x = adapted(bias=True, dora=dora), torch.randn(5, 6)
    before = part(x)
    merge_adapters(part)
    torch.testing.assert_close(part(x), before)


def test_dropout_stays_as_peft_has_it() -> None:
    assert not is_fast(adapted(bias=True, dropout=0.1))
