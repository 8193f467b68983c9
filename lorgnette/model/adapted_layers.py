"""Linear layers that are not one float matrix: held in 8 bits, or with a low-rank adapter kept beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.ops.int8_product import dequantised, dequantised_product, quantise_rows


class Int8Linear(nn.Linear):
    """A linear layer whose frozen weight is held as 8-bit integers and the size of a step in each row.

    Its passes are those of the float weight that these stand for, which each computes, with gradients of the input. The
    weight itself has none. Bias stays float.
    """

    def __init__(self, rounded: Tensor, steps: Tensor, bias: nn.Parameter | None) -> None:
        """rounded, steps: as `quantise_rows` makes them."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = rounded.shape
        self.rounded, self.steps = (nn.Parameter(one, requires_grad=False) for one in (rounded, steps))
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The float32 matrix that the integers stand for, computed at each call."""
        return dequantised(self.rounded, self.steps)

    def forward(self, x_TD: Tensor) -> Tensor:
        return dequantised_product(x_TD, self.rounded, self.steps, self.bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        """The same layer, its weight rounded."""
        return cls(*quantise_rows(linear.weight), linear.bias)

    def in_float(self) -> nn.Linear:
        """The layer whose weight these integers stand for."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight, linear.bias = nn.Parameter(self.weight, requires_grad=False), self.bias
        return linear


def replace_layers(part: nn.Module, made: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put in the place of each submodule what `made` makes of it, one after another; None leaves it."""
    for name, module in [*part.named_modules()]:
        other = made(module) if name else None
        if other is not None:
            parent, _, child = name.rpartition(".")
            setattr(part.get_submodule(parent), child, other)


def round_layers(part: nn.Module) -> None:
    """Hold the linear layers within the layers of `part` as 8-bit integers, in place, one layer after another."""
    for layer in part.get_submodule("layers").children():
        replace_layers(layer, lambda module: Int8Linear.of(module) if type(module) is nn.Linear else None)


class AdaptedLinear(nn.Module):
    """A linear layer with a LoRA or DoRA adapter beside it, for answering: y = share * (W x + scale B A x) + bias.

    `share` is 1 for LoRA; for DoRA it gives each row of W + scale B A its trained magnitude. Merged into W is the same.
    """

    share: Tensor | None

    def __init__(
        self, base_layer: nn.Linear, down: Tensor, up: Tensor, scale: float, magnitude: Tensor | None = None
    ) -> None:
        """down: A, of rank by width; up: B, of rows by rank; magnitude: of each row, for DoRA."""
        super().__init__()
        self.base_layer, self.scale = base_layer, scale
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.lora_down, self.lora_up = nn.Parameter(down), nn.Parameter(up)
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        with torch.no_grad():
            self.register_buffer("share", self.shares(base_layer.weight), persistent=False)

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def shares(self, weight: Tensor) -> Tensor | None:
        """Factor of each row of the adapted product, over this weight; None for LoRA."""
        if self.magnitude is None:
            return None
        whole = torch.addmm(weight.float(), self.lora_up.float(), self.lora_down.float(), alpha=self.scale)
        return (self.magnitude.float() / torch.linalg.vector_norm(whole, dim=1)).to(self.magnitude.dtype)

    def forward(self, x_TD: Tensor) -> Tensor:
        out_TD = F.linear(x_TD, self.base_layer.weight)
        out_TD = out_TD + F.linear(F.linear(x_TD, self.lora_down), self.lora_up) * self.scale
        out_TD = out_TD if self.share is None else out_TD * self.share
        return out_TD if self.bias is None else out_TD + self.bias
