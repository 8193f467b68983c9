"""Cross-entropy of a linear head without ever holding the logits of all tokens, forward or backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024
"""Rows of logits held at a time."""


def linear_cross_entropy(
    hidden_TD: Tensor, tables: tuple[Tensor, ...], targets_T: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Sum over rows of the cross-entropy between `hidden_TD @ cat(tables).T` and `targets_T` (a float32 scalar).

    tables: the head's weights as one or more blocks of vocabulary rows (each K,D); frozen ones cost no gradient.
    Gradients are made in the forward pass, chunk by chunk, where the logits are at hand.
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden_TD, targets_T, chunk, *tables)
    return total


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TD: Tensor, targets_T: Tensor, chunk: int, *tables: Tensor) -> Tensor:
        wants_hidden, wants_tables = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        hidden_grad = torch.empty_like(hidden_TD) if wants_hidden else None
        table_grads = [torch.zeros_like(t) if wanted else None for t, wanted in zip(tables, wants_tables, strict=True)]
        total = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        for start in range(0, len(targets_T), chunk):
            rows = slice(start, start + chunk)
            logits = torch.cat([F.linear(hidden_TD[rows], table) for table in tables], -1).float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            total += (normaliser - logits.gather(1, targets_T[rows, None])).sum()
            if not wants_hidden and not any(wants_tables):
                continue
            logits.sub_(normaliser).exp_()  # from here on the gradient: softmax minus one at the target
            logits.scatter_add_(1, targets_T[rows, None], torch.full_like(normaliser, -1.0))
            parts = logits.to(hidden_TD.dtype).split([len(table) for table in tables], -1)
            if hidden_grad is not None:
                torch.mm(parts[0], tables[0], out=hidden_grad[rows])
                for part, table in zip(parts[1:], tables[1:], strict=True):
                    hidden_grad[rows].addmm_(part, table)
            for part, grad in zip(parts, table_grads, strict=True):
                if grad is not None:
                    grad.addmm_(part.T, hidden_TD[rows])
        ctx.save_for_backward(hidden_grad, *table_grads)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *tables = (saved if saved is None else saved * grad.to(saved.dtype) for saved in ctx.saved_tensors)
        return hidden, None, None, *tables


@torch.no_grad()
def linear_log_probabilities(
    hidden_TD: Tensor, tables: tuple[Tensor, ...], targets_T: Tensor, chunk: int = CHUNK
) -> Tensor:
    """The log-probability of each target (float32, T), chunk by chunk and without gradients: for scoring."""
    scores = [torch.empty(0, device=hidden_TD.device)]
    for start in range(0, len(targets_T), chunk):
        rows = slice(start, start + chunk)
        logits = torch.cat([F.linear(hidden_TD[rows], table) for table in tables], -1).float()
        scores.append(logits.gather(1, targets_T[rows, None])[:, 0] - logits.logsumexp(-1))
    return torch.cat(scores)
