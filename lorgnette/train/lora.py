"""LoRA and DoRA layers of PEFT on a CPU by one product for each pass, instead of several passes over their output."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def speed_up(part: nn.Module, adapter: str) -> None:
    """Let the adapted layers of `part` compute by `_AdaptedLinear` where they can: in float32 on the CPU, in training.

    They stay PEFT's: how they are saved and merged is not changed, and whatever is unusual they compute as before.
    """
    for layer in part.modules():
        adapted: Any = layer
        if adapter in getattr(layer, "lora_A", ()) and isinstance(adapted.lora_dropout[adapter], nn.Identity):
            adapted.forward = types.MethodType(_forward, adapted)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    unusual = args or kwargs or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1
    if unusual or x.ndim != 2 or x.device.type != "cpu" or x.dtype != torch.float32 or not torch.is_grad_enabled():
        usual: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return usual
    [name] = layer.active_adapters
    a, b = (getattr(layer, f"lora_{letter}")[name].weight for letter in "AB")
    magnitude = layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None
    base = layer.base_layer
    out: Tensor = _AdaptedLinear.apply(x, base.weight, base.bias, a, b, layer.scaling[name], magnitude)
    return out


class _AdaptedLinear(torch.autograd.Function):
    """x W^T + bias with W as `adapted_weight` has it, of which `weight` and `bias` are frozen.

    W is small beside what passes through it: it is made anew for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        magnitude: Tensor | None,
    ) -> Tensor:
        whole, _ = adapted_weight(weight, a, b, scale, magnitude)
        out_TD = F.linear(x_TD, whole, bias)
        ctx.save_for_backward(x_TD, weight, bias, a, b, magnitude, None if magnitude is None else out_TD)
        ctx.scale = scale
        return out_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, weight, bias, a, b, magnitude, out_TD = ctx.saved_tensors
        whole, share = adapted_weight(weight, a, b, ctx.scale, magnitude)
        a_grad = (grad @ (b * share)).mul_(ctx.scale).T @ x_TD
        b_grad = ((x_TD @ a.T).mul_(ctx.scale).T @ grad).T  # not grad.T @ ..., which is slower for few columns
        x_grad = grad @ whole if ctx.needs_input_grad[0] else None
        if magnitude is None:
            return x_grad, None, None, a_grad, b_grad, None, None
        along = (grad * out_TD).sum(0)
        if bias is not None:
            along -= bias * grad.sum(0)
        return x_grad, None, None, a_grad, b_grad * share, None, along / magnitude


def adapted_weight(
    weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None
) -> tuple[Tensor, Tensor | float]:
    """W = weight + scale b a, and by what its rows were multiplied to have their magnitude.

    magnitude: for DoRA, of each row of W; as PEFT has it, no gradient goes through the row's own length.
    """
    whole = torch.addmm(weight, b, a, alpha=scale)
    if magnitude is None:
        return whole, 1.0
    share = (magnitude / torch.linalg.vector_norm(whole.detach(), dim=1))[:, None]
    return whole * share, share
