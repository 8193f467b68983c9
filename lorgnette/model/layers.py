"""Layers that several parts share: norm, activations, gated MLP, and the stack that can be checkpointed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

ROWS_OF_A_CACHE = 2**20
"""Elements of the widest activation that a CPU works on at a time (4 MiB in float32).

Larger ones leave the cache, and the allocator maps them anew each time: a fifth of an encoder's time went into pages.
"""
TWICE_U = 2 * math.sqrt(2 / math.pi)


def rows_at_a_time(x_TD: Tensor, widest: int) -> int:
    """How many rows to work on at a time, where the widest activation has `widest` elements a row."""
    return max(ROWS_OF_A_CACHE // widest, 1) if x_TD.device.type == "cpu" else max(len(x_TD), 1)


class RMSNorm(nn.Module):
    """Scale to unit mean square, then by a learned weight."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32:
            out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)
            return out
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def in_rows(mlp: Callable[[Tensor], Tensor], x_TD: Tensor, widest: int) -> Tensor:
    """`mlp(x_TD)`, a few rows at a time where that is faster."""
    pieces = x_TD.split(rows_at_a_time(x_TD, widest))
    return mlp(x_TD) if len(pieces) == 1 else torch.cat([mlp(piece) for piece in pieces])


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula, within rounding."""
    if x.device.type == "cpu" and x.dtype == torch.float32:
        out: Tensor = _GeluTanh.apply(x)
        return out
    return F.gelu(x, approximate="tanh")


class SwiGLU(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.hidden = hidden
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, out or width, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return in_rows(self._rows, x_TD, self.hidden)

    def _rows(self, x_TD: Tensor) -> Tensor:
        out: Tensor = self.down(_SiluTimes.apply(self.gate(x_TD), self.up(x_TD)))
        return out


class Stack(nn.Module):
    """A part made of layers. Its flag says whether a layer's activations are recomputed in the backward pass."""

    checkpointed = False

    def run(self, layer: nn.Module, *inputs: Any) -> Any:
        """The layer's output, recomputed in the backward pass if this part is checkpointed."""
        if self.checkpointed and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class _RMSNorm(torch.autograd.Function):
    """As `F.rms_norm`, which on the CPU is a chain of small operations, 2.6 times slower, that keeps x twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        by_weight = (grad * x).mul_(scale)
        along_x = (by_weight @ weight)[..., None].mul_(scale).div_(-x.shape[-1])
        x_grad = (grad * weight).addcmul_(x, along_x).mul_(scale)
        return x_grad, by_weight.flatten(0, -2).sum(0), None


class _GeluTanh(torch.autograd.Function):
    """x * sigmoid(2u) for x * (1 + tanh(u)) / 2: half the time on a CPU, whose tanh is slow.

    The backward pass needs the slope alone, which costs less where the sigmoid is at hand than it would cost there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = x * x
        share = (square * (TWICE_U * 0.044715)).add_(TWICE_U).mul_(x).sigmoid_()
        if not ctx.needs_input_grad[0]:
            return share.mul_(x)
        out = x * share
        slope = square.mul_(3 * TWICE_U * 0.044715).add_(TWICE_U).mul_(out)  # d(2u)/dx * out
        slope.addcmul_(slope, share, value=-1).add_(share)
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        [slope] = ctx.saved_tensors
        return grad * slope


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
