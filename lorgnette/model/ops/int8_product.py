"""Products in 8-bit integers: weights rounded by row once, activations by row in each call (W8A8, dynamic).

The range of each row of activations is its own, so that a row's result does not depend on the rows beside it, and sums
are exact integers, so that it does not depend on their number either. `plain_int8_product` says the same in floating
point.

`dequantised_product` is for training over such weights: in float, with gradients of its input. Nothing float of the
matrix is kept for the backward pass, which makes it again.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorgnette.errors import SettingsError

WEIGHT_LEVELS = 127
"""Steps on each side of zero of a weight."""


class Int8Product:
    """Linear layers that take the same input, as one product in 8-bit integers: a quarter of the memory."""

    def __init__(self, *linears: nn.Linear) -> None:
        """Raises: SettingsError where this processor cannot."""
        check_int8()
        self.bias_D = None if linears[0].bias is None else torch.cat([one.bias.detach() for one in linears])
        rounded, steps = zip(*map(_rows_of, linears), strict=True)
        self.packed = _packed(torch.cat(rounded), torch.cat(steps))
        self.levels = activation_levels()

    def __call__(self, x_TD: Tensor) -> Tensor:
        """The product of each row, in float32."""
        out_TD, ranges_TD = self._product(x_TD)
        return out_TD.mul_(ranges_TD) if self.bias_D is None else torch.addcmul(self.bias_D, out_TD, ranges_TD)

    def plus(self, x_TD: Tensor, more_TD: Tensor) -> Tensor:
        """The product of each row, added to another tensor."""
        if self.bias_D is not None:
            return self(x_TD).add_(more_TD)
        return torch.addcmul(more_TD, *self._product(x_TD))

    def unpacked(self) -> tuple[Tensor, Tensor]:
        """The integers of the matrix, and the size of a step in each of its rows (float32)."""
        weight_VD, _ = torch.ops.quantized.linear_unpack(self.packed)
        return weight_VD.int_repr(), weight_VD.q_per_channel_scales().float()

    def _product(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The product of each row over its range, and the ranges. A row of zeros over 0 is NaN, which 0 times rounds
        away: the engine makes some integer of it."""
        ranges_TD = torch.linalg.vector_norm(x_TD, float("inf"), -1, keepdim=True)
        return _multiplied(x_TD / ranges_TD, self.packed, self.levels), ranges_TD


def _rows_of(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """The rows of a layer as integers and steps: rounded now, unless it holds them so (`Int8Linear`)."""
    held: Any = linear
    return (held.rounded, held.steps) if hasattr(held, "rounded") else quantise_rows(held.weight)


def plain_int8_product(x_TD: Tensor, weight_VD: Tensor, levels: int) -> Tensor:
    """The plain version of `Int8Product`, from float weights and without bias; the oracle of its tests."""
    rounded, scales = quantise_rows(weight_VD)
    ranges_TD = x_TD.abs().amax(-1, keepdim=True)
    steps_TD = torch.where(ranges_TD > 0, x_TD / ranges_TD * levels, 0.0).round()
    sums_TV = steps_TD.long() @ rounded.long().T
    return sums_TV * scales * (ranges_TD / levels)


def quantise_rows(weight_VD: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix as 8-bit integers, and the size of a step in each row (float32)."""
    steps = weight_VD.detach().float().abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny) / WEIGHT_LEVELS
    rounded = (weight_VD.detach().float() / steps[:, None]).round_().clamp_(-WEIGHT_LEVELS, WEIGHT_LEVELS)
    return rounded.to(torch.int8), steps


def dequantised_product(x_TD: Tensor, rounded_ED: Tensor, steps_E: Tensor, bias_E: Tensor | None = None) -> Tensor:
    """The product of each row: T,E, in the type of `x_TD`. rounded_ED, steps_E: as `quantise_rows` makes them."""
    out_TE: Tensor = _DequantisedProduct.apply(x_TD, rounded_ED, steps_E, bias_E)
    return out_TE


def plain_dequantised_product(
    x_TD: Tensor, rounded_ED: Tensor, steps_E: Tensor, bias_E: Tensor | None = None
) -> Tensor:
    """The plain version, of which autograd keeps the float matrix; the oracle of the tests."""
    return F.linear(x_TD, dequantised(rounded_ED, steps_E).to(x_TD.dtype), bias_E)


def dequantised(rounded_ED: Tensor, steps_E: Tensor) -> Tensor:
    """The float32 matrix that the integers stand for."""
    return rounded_ED * steps_E[:, None]


class _DequantisedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, rounded_ED: Tensor, steps_E: Tensor, bias_E: Tensor | None) -> Tensor:
        ctx.save_for_backward(rounded_ED, steps_E)
        return plain_dequantised_product(x_TD, rounded_ED, steps_E, bias_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TE: Tensor) -> tuple[Tensor | None, ...]:
        rounded_ED, steps_E = ctx.saved_tensors
        x_grad = grad_TE @ dequantised(rounded_ED, steps_E).to(grad_TE.dtype) if ctx.needs_input_grad[0] else None
        return x_grad, None, None, grad_TE.sum(0) if ctx.needs_input_grad[3] else None


def check_int8() -> None:
    """Raises: SettingsError where this build of torch, or this processor, has no kernel for these products."""
    if ENGINE not in torch.backends.quantized.supported_engines:
        has = ", ".join(one for one in torch.backends.quantized.supported_engines if one != "none") or "none"
        raise SettingsError(
            f"quantize int8: needs the {ENGINE} engine of PyTorch's quantised products, and this one has {has}; leave"
            " out quantize"
        )


ENGINE = "fbgemm"
"""Engine of torch whose products take a range that is given, and not one range for all rows of a call."""


@cache
def activation_levels() -> int:
    """Steps on each side of zero of an activation: 127, or 63 where the processor adds pairs of products in 16 bits.

    Without VNNI instructions 255 * 127 twice would not fit. It is tried out, not guessed from the processor's name.
    """
    weight = torch.full((32, 64), WEIGHT_LEVELS, dtype=torch.int8)
    found = _multiplied(torch.ones(1, 64), _packed(weight, torch.ones(32)), 127)
    return 127 if found.eq(64 * WEIGHT_LEVELS).all() else 63


def _packed(rounded_VD: Tensor, steps: Tensor) -> Any:
    """Integers in the layout of the engine's kernels."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():  # torch announces another form of quantised tensors, and has no such products of it
        warnings.simplefilter("ignore")
        zeros = torch.zeros(len(steps), dtype=torch.int64)
        quantised = torch.quantize_per_channel(rounded_VD * steps[:, None], steps, zeros, 0, torch.qint8)
        torch.backends.quantized.engine = ENGINE
        try:
            return torch.ops.quantized.linear_prepack(quantised, None)
        finally:
            torch.backends.quantized.engine = before


def _multiplied(x_TD: Tensor, packed: Any, levels: int) -> Tensor:
    """The product of rows of numbers from -1 to 1."""
    out_TD: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        x_TD, 1 / levels, levels + 1, packed
    )
    return out_TD
