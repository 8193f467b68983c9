"""Muon (Jordan et al. 2024): steps in which every direction of a weight matrix moves equally far.

From random weights a VLM first learns the statistics of the answers, and only then to look: the few directions that
carry the picture are small beside those that carry the text. AdamW stays on that plateau for long; making all
directions of the momentum equal leaves it several times sooner (measured in docs/notebook.md). Matrices inside layers
take such steps; embeddings, heads and vectors take AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lorgnette.train.parallel import share_of, whole

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen by Jordan for speed; singular values end between about 0.7 and 1.2."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `muon: True` take Muon's steps instead.

    A Muon group holds matrices only. Its `lr` is the spectral norm of a step on a square matrix (0.02 is usual); a
    matrix with more rows than columns takes a step longer by the root of their ratio.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, momentum: float = 0.95, iterations: int = 5, **adamw: Any
    ) -> None:
        self.momentum, self.iterations = momentum, iterations
        super().__init__(groups, **adamw)

    def __setstate__(self, state: dict[str, Any]) -> None:
        torch.optim.Optimizer.__setstate__(self, state)  # AdamW's asks for steps, which Muon's matrices do not count

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters. A closure is not supported."""
        assert closure is None
        for group in self.param_groups:
            if group.get("muon"):
                self._step_matrices(group)
        super().step()  # which passes over parameters without a gradient
        return None

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """Step all matrices of a group, those of equal shape together; their gradients are used up.

        A sharded matrix is gathered first, and each rank keeps its share of the step: a share of a matrix has other
        singular vectors than the whole.
        """
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape.setdefault(weight.shape, []).append(weight)
        for (rows, columns), weights in by_shape.items():
            updates = orthogonal(torch.stack([whole(self._push(weight)) for weight in weights]), self.iterations)
            length = group["lr"] * max(1, rows / columns) ** 0.5
            for weight, update in zip(weights, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(share_of(update, weight), alpha=-length)
                weight.grad = None

    def _push(self, weight: Tensor) -> Tensor:
        """Add the gradient to the momentum; the direction to step in, by Nesterov's look-ahead."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(weight.grad, 1 - self.momentum)
        return weight.grad.lerp(momentum, self.momentum)


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearly orthogonal matrices with the same singular vectors: shape (matrices, rows, columns), any dtype.

    Newton-Schulz iteration, batched; on the side that is shorter, so that products are small.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    x = _through_gram(x, iterations) if x.shape[-1] >= 2 * x.shape[-2] else _iterated(x, iterations)
    return x if wide else x.mT


def _iterated(x: Tensor, iterations: int) -> Tensor:
    """x to (a + b g + c g g) x, with g = x x^T, again and again."""
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _through_gram(x: Tensor, iterations: int) -> Tensor:
    """The same for matrices with few rows: what x is multiplied by, and its Gram matrix, are as small as these."""
    a, b, c = COEFFICIENTS
    gram, product = x @ x.mT, None
    for left in reversed(range(iterations)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    return x if product is None else product @ x
