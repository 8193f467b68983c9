"""Products with matrices that do not change: what a prepared layer is made of. `nn.Linear` is the plain version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Product(Protocol):
    """A product with a matrix, and its bias if it has one."""

    def __call__(self, x_TD: Tensor) -> Tensor:
        """The product of each row: T, rows of the matrix."""

    def plus(self, x_TD: Tensor, more_TD: Tensor) -> Tensor:
        """The product of each row, added to another tensor."""


class FloatProduct:
    """Linear layers that take the same input, as one product: their matrices stand one below the other.

    No memory is added: the parameters become views of the joined matrix. What changes one in place, as an optimizer
    does, changes the product too.
    """

    def __init__(self, *linears: nn.Linear) -> None:
        self.linears = linears
        weights, *biases = self._groups()
        self.weight_ED, self.bias_E = join_rows(weights), join_rows(biases[0]) if biases else None

    def _groups(self) -> list[list[nn.Parameter]]:
        weights, biases = [[getattr(one, name) for one in self.linears] for name in ("weight", "bias")]
        return [weights] if biases[0] is None else [weights, biases]

    def __call__(self, x_TD: Tensor) -> Tensor:
        return F.linear(x_TD, self.weight_ED, self.bias_E)

    def plus(self, x_TD: Tensor, more_TD: Tensor) -> Tensor:
        if self.bias_E is not None:
            return self(x_TD).add_(more_TD)
        return torch.addmm(more_TD, x_TD, self.weight_ED.t())

    def is_current(self) -> bool:
        """Return whether the parameters are where they were."""
        return self.linears[0].weight.data_ptr() == self.weight_ED.data_ptr() and all(map(are_joined, self._groups()))


class AdaptedProduct:
    """A product with low-rank adapters beside it: share * (product + adapters) + bias, rows of several layers at once.

    All first matrices stand one below the other, so that two products more serve every layer of the group.
    """

    def __init__(
        self, product: Product, down_RD: Tensor, up_ER: Tensor, share_E: Tensor | None, bias_E: Tensor | None
    ) -> None:
        """down_RD, up_ER: of all layers, the second scaled and along the diagonal. bias_E: of the product."""
        self.product, self.down_RD, self.up_ER, self.share_E = product, down_RD, up_ER, share_E
        self.held_E = None if share_E is None or bias_E is None else bias_E * (1 - share_E)

    def __call__(self, x_TD: Tensor) -> Tensor:
        out_TD = self.product(x_TD).addmm_(F.linear(x_TD, self.down_RD), self.up_ER.t())
        if self.share_E is None:
            return out_TD
        return out_TD.mul_(self.share_E) if self.held_E is None else torch.addcmul(self.held_E, out_TD, self.share_E)

    def plus(self, x_TD: Tensor, more_TD: Tensor) -> Tensor:
        return self(x_TD).add_(more_TD)


@torch.no_grad()
def join_rows(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One tensor of all rows (or elements, of biases), of which the parameters become views, if they are not yet."""
    if not are_joined(parameters):
        joined = torch.cat([one.detach() for one in parameters])
        for parameter, rows in zip(parameters, joined.split([len(one) for one in parameters]), strict=True):
            parameter.data = rows
    first = parameters[0].detach()
    return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride(), first.storage_offset())


def are_joined(tensors: Sequence[Tensor]) -> bool:
    """Return whether each tensor begins where the one before it ends, in the same memory."""
    first = tensors[0]
    place = first.data_ptr()
    end = first.untyped_storage().data_ptr() + first.untyped_storage().nbytes()
    for one in tensors:
        if one.data_ptr() != place or not one.is_contiguous() or one.dtype != first.dtype:
            return False
        place += one.numel() * one.itemsize
    return place <= end
