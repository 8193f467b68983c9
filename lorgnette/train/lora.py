"""LoRA layers of PEFT on a CPU by one product for each pass, instead of three passes over the layer's output."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def speed_up(part: nn.Module, adapter: str) -> None:
    """Let the LoRA layers of `part` compute by `adapted_linear` where they can: in float32 on the CPU, in training.

    They stay PEFT's: how they are saved and merged is not changed, and whatever is unusual they compute as before.
    """
    for layer in part.modules():
        adapted: Any = layer
        if adapter not in getattr(layer, "lora_A", ()) or adapter in adapted.lora_variant:
            continue
        if isinstance(adapted.lora_dropout[adapter], nn.Identity):
            adapted.forward = types.MethodType(_forward, adapted)


def adapted_linear(x_TD: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """x (weight + scale b a)^T + bias, of which `weight` and `bias` are frozen."""
    out: Tensor = _AdaptedLinear.apply(x_TD, weight, bias, a, b, scale)
    return out


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    unusual = args or kwargs or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1
    if unusual or x.ndim != 2 or x.device.type != "cpu" or x.dtype != torch.float32 or not torch.is_grad_enabled():
        out: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return out
    [name] = layer.active_adapters
    a, b = (layer.get_submodule(f"lora_{letter}.{name}").weight for letter in "AB")
    return adapted_linear(x, layer.base_layer.weight, layer.base_layer.bias, a, b, layer.scaling[name])


class _AdaptedLinear(torch.autograd.Function):
    """The sum of both weights is small beside what passes through it: it is made anew for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x_TD, weight, a, b)
        ctx.scale = scale
        return F.linear(x_TD, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weight, a, b = ctx.saved_tensors
        a_grad = (grad @ b).mul_(ctx.scale).T @ x_TD
        b_grad = ((x_TD @ a.T).mul_(ctx.scale).T @ grad).T  # not grad.T @ ..., which is slower for few columns
        x_grad = grad @ torch.addmm(weight, b, a, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        return x_grad, None, None, a_grad, b_grad, None
