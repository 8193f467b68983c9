"""LoRA and DoRA layers of PEFT on a CPU by one product for each pass, instead of several passes over their output."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorgnette.model.adapted_layers import Int8Linear
from lorgnette.model.layers import Stack
from lorgnette.model.ops.int8_product import dequantised_product


def speed_up(part: nn.Module, adapter: str) -> None:
    """Let the adapted layers of `part` compute by `_AdaptedLinear` where they can: in float32 on the CPU, in training.

    They stay PEFT's: how they are saved and merged is not changed, and whatever is unusual they compute as before.
    """
    for layer in part.modules():
        adapted: Any = layer
        if adapter in getattr(layer, "lora_A", ()) and isinstance(adapted.lora_dropout[adapter], nn.Identity):
            adapted.forward = types.MethodType(_forward, adapted)


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[list[Tensor]]:
    """Context in which each adapted weight W + s B A is computed once, not for each pass; parameters must not change.

    Not in a part that is checkpointed: they take the memory of what they adapt a second time. Yields the weights that
    take a gradient of their own, whole (see `fewer_products`): at the end it is passed on to their adapters.
    """
    parts = [part for part in model.modules() if isinstance(part, Stack) and not part.checkpointed]
    layers: list[Any] = [layer for part in parts for layer in part.modules() if "forward" in vars(layer)]
    layers, taken = list(filter(_is_usual, layers)), []
    for layer in layers:
        layer.made = _make(layer)
        weight, share = layer.made
        if weight.requires_grad:
            layer.made = weight.detach().requires_grad_(), share
            taken.append((weight, layer.made[0]))
    try:
        yield [leaf for _, leaf in taken]
        for weight, leaf in taken:
            if leaf.grad is not None:
                weight.backward(leaf.grad)
    finally:
        for layer in layers:
            del layer.made


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    unusual = args or kwargs or x.ndim != 2 or x.dtype != torch.float32
    if not unusual and isinstance(layer.base_layer, Int8Linear) and _is_alone(layer):
        return _over_integers(layer, x)
    if unusual or not _is_usual(layer) or not torch.is_grad_enabled():
        usual: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return usual
    made = vars(layer).get("made") or _make(layer)
    if made[0].requires_grad:
        return F.linear(x, made[0], layer.base_layer.bias)
    out: Tensor = _AdaptedLinear.apply(x, *made, layer.base_layer.bias, *_adapter(layer))
    return out


def _is_usual(layer: Any) -> bool:
    if type(layer.base_layer) is not nn.Linear:
        return False
    weight = layer.base_layer.weight
    return _is_alone(layer) and weight.device.type == "cpu" and weight.dtype == torch.float32


def _is_alone(layer: Any) -> bool:
    return not layer.disable_adapters and not layer.merged and len(layer.active_adapters) == 1


def _over_integers(layer: Any, x_TD: Tensor) -> Tensor:
    """share * (W x + s B A x) + bias over a weight in 8 bits, of which nothing float is kept for the backward pass."""
    base, (a, b, magnitude) = layer.base_layer, _adapter(layer)
    [scale] = (layer.scaling[name] for name in layer.active_adapters)
    out_TD = dequantised_product(x_TD, base.rounded, base.steps) + F.linear(F.linear(x_TD, a), b) * scale
    if magnitude is not None:
        with torch.no_grad():
            length = torch.linalg.vector_norm(torch.addmm(base.weight, b, a, alpha=scale), dim=1)
        out_TD = out_TD * (magnitude / length)
    return out_TD if base.bias is None else out_TD + base.bias


def _adapter(layer: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    [name] = layer.active_adapters
    a, b = (getattr(layer, f"lora_{letter}")[name].weight for letter in "AB")
    return a, b, layer.lora_magnitude_vector[name].weight if name in layer.lora_magnitude_vector else None


def _make(layer: Any) -> tuple[Tensor, Tensor | float]:
    """The adapted weight, and what a row of b a is multiplied by in it; with a graph if it takes the whole gradient."""
    [scale] = (layer.scaling[name] for name in layer.active_adapters)
    a, b, magnitude = _adapter(layer)
    weight = layer.base_layer.weight
    out, width = weight.shape
    with torch.set_grad_enabled(fewer_products(width, out, len(a))):
        whole, share = adapted_weight(weight, a, b, scale, magnitude)
    return whole, scale * share


class _AdaptedLinear(torch.autograd.Function):
    """x W^T + bias with W = `whole`, as `_make` has it, of which `a`, `b` and `magnitude` are trained."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        whole: Tensor,
        share: Tensor | float,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        magnitude: Tensor | None,
    ) -> Tensor:
        out_TD = F.linear(x_TD, whole, bias)
        ctx.save_for_backward(x_TD, whole, bias, a, b, magnitude, None if magnitude is None else out_TD)
        ctx.share = share
        return out_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_TD, whole, bias, a, b, magnitude, out_TD = ctx.saved_tensors
        x_grad, along = grad @ whole if ctx.needs_input_grad[0] else None, None
        a_grad = (grad @ (b * ctx.share)).T @ x_TD
        b_grad = ((x_TD @ a.T).T @ grad).T * ctx.share  # not grad.T @ ..., which is slower for few columns
        if magnitude is not None:
            along = (grad * out_TD).sum(0)
            if bias is not None:
                along -= bias * grad.sum(0)
            along /= magnitude
        return x_grad, None, None, None, a_grad, b_grad, along


def fewer_products(width: int, out: int, rank: int) -> bool:
    """True if the whole gradient of an adapted weight takes fewer products than those of `a` and `b` without it.

    So it is in narrow layers of a high rank, as 64 in square ones of up to 256.
    """
    return width * out <= 2 * rank * (width + out)


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
