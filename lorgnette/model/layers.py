"""Layers that several parts share: RMS norm, MLPs, and the stack that can be checkpointed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from lorgnette.model.ops.gelu_tanh import gelu_tanh
from lorgnette.model.ops.rms_norm import rms_norm
from lorgnette.model.ops.silu_times import silu_times
from lorgnette.model.ops.tiling import in_rows


class RMSNorm(nn.Module):
    """Scale to unit mean square, then by a learned weight, or by 1 + that weight."""

    def __init__(self, width: int, eps: float, *, offset: bool = False):
        super().__init__()
        self.first = 0.0 if offset else 1.0
        """Weight by which nothing is changed, at which it begins."""
        self.weight = nn.Parameter(torch.full((width,), self.first))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight + 1 if self.offset else self.weight, self.eps)


def norm_of(kind: Literal["rms", "layer"], width: int, eps: float) -> nn.Module:
    """A norm by its name in settings: root mean square, or mean and deviation with a bias."""
    return RMSNorm(width, eps) if kind == "rms" else nn.LayerNorm(width, eps)


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
        out: Tensor = self.down(silu_times(self.gate(x_TD), self.up(x_TD)))
        return out


class GeGLU(SwiGLU):
    """Gated MLP of Gemma: down(gelu(gate(x)) * up(x)), the GELU by its tanh form."""

    def _rows(self, x_TD: Tensor) -> Tensor:
        out: Tensor = self.down(gelu_tanh(self.gate(x_TD)) * self.up(x_TD))
        return out


class MLP(nn.Module):
    """Two linear layers: down(activation(up(x)))."""

    def __init__(self, width: int, hidden: int, out: int, *, activation: Callable[[Tensor], Tensor], bias: bool = True):
        super().__init__()
        self.hidden, self.activation = hidden, activation
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, out, bias=bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        return in_rows(self._rows, x_TD, self.hidden)

    def _rows(self, x_TD: Tensor) -> Tensor:
        out: Tensor = self.down(self.activation(self.up(x_TD)))
        return out


class Stack(nn.Module):
    """Part of a model made of blocks. Its flag turns activation checkpointing on: blocks are recomputed in backward."""

    checkpointed = False

    def blocks(self) -> Iterable[nn.Module]:
        """Submodules that are compiled, checkpointed and sharded one by one."""
        return self.children()

    def shorten(self, layers: int) -> int:
        """Leave out the layers after the first so many, of a part that has `layers`, and return their number."""
        stacked = getattr(self, "layers", None)
        if not isinstance(stacked, nn.ModuleList) or len(stacked) <= layers:
            return 0
        self.layers = stacked[:layers]
        return len(stacked) - layers

    def run(self, layer: Callable[..., Any], *inputs: Any) -> Any:
        """The layer's output, recomputed in the backward pass if this part is checkpointed."""
        if self.checkpointed and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)
