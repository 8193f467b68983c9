"""The product within a gated MLP, without keeping its activation for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up; the backward pass recomputes silu(gate) instead of keeping it."""
    out: Tensor = _SiluTimes.apply(gate, up)
    return out


def plain_silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """The plain version of `silu_times`, the oracle of its tests."""
    return F.silu(gate) * up


class _SiluTimes(torch.autograd.Function):
    """silu(gate) * up, without keeping silu(gate) for the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)
