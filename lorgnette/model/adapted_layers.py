"""Linear layers that are not one float matrix: held in 8 bits, or with a low-rank adapter kept beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
