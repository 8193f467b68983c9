"""A product with a matrix that is held as 8-bit integers, made float32 again in each pass: with gradients of its input.

Nothing float of the matrix is kept for the backward pass, which makes it again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


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
