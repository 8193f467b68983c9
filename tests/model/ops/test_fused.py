"""Fused functions equal their plain versions, forward and backward."""

from __future__ import annotations

import pytest
import torch

from lorgnette.model.ops.gelu_tanh import gelu_tanh, plain_gelu_tanh
from lorgnette.model.ops.rms_norm import plain_rms_norm, rms_norm
from lorgnette.model.ops.silu_times import plain_silu_times, silu_times
from lorgnette.model.ops.tiling import in_rows


def leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator) * scale).requires_grad_()


FUSED = {
    "gelu_tanh": (gelu_tanh, plain_gelu_tanh, [torch.linspace(-60, 60, 4001).requires_grad_()]),
    "rms_norm": (lambda x, w: rms_norm(x, w, 1e-5), lambda x, w: plain_rms_norm(x, w, 1e-5), [leaf(7, 24), leaf(24)]),
    "rms_norm, heads": (
        lambda x, w: rms_norm(x, w, 1e-6),
        lambda x, w: plain_rms_norm(x, w, 1e-6),
        [leaf(5, 3, 8, scale=30.0), leaf(8)],
    ),
    "silu_times": (silu_times, plain_silu_times, [leaf(9, 16, scale=4.0), leaf(9, 16)]),
}


@pytest.mark.parametrize(("fused", "plain", "inputs"), FUSED.values(), ids=FUSED)
def test_equals_its_plain_version(fused, plain, inputs) -> None:
    ours, theirs = fused(*inputs), plain(*inputs)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-6)
    weights = leaf(*ours.shape).detach()
    grads = [torch.autograd.grad((out * weights).sum(), inputs) for out in (ours, theirs)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("fused", "plain", "inputs"), FUSED.values(), ids=FUSED)
def test_half_precision_is_torchs_own_or_as_near(fused, plain, inputs) -> None:
    halves = [value.detach().bfloat16() for value in inputs]
    torch.testing.assert_close(fused(*halves), plain(*halves), atol=1e-2, rtol=2e-2)


def test_gelu_of_infinity() -> None:
    assert gelu_tanh(torch.tensor([float("inf")])).item() == float("inf")


def test_tiles_of_rows_are_all_rows(monkeypatch) -> None:
    x = leaf(11, 6)
    monkeypatch.setattr("lorgnette.model.ops.tiling.ROWS_OF_A_CACHE", 24)
    seen = []
    out = in_rows(lambda rows: seen.append(len(rows)) or rows * 2, x, 6)
    assert seen == [4, 4, 3] and torch.equal(out, x * 2)
