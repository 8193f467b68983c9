"""Cross-entropy of a linear head without ever holding the logits of all tokens, forward or backward."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cpu": 2**22, "cuda": 2**25}
"""Logits held at a time, in float32: 16 MiB, which a CPU's cache has room for, and 128 MiB."""


def linear_losses(
    hidden_TD: Tensor,
    tables: tuple[Tensor, ...],
    targets_T: Tensor,
    chunk: int | None = None,
    z_loss: float = 0.0,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy between `hidden_TD @ cat(tables).T` and `targets_T`: summed over rows, and of each row (T).

    Both are float32; the second has no gradient. Gradients are made in the forward pass, where the logits are at hand.

    tables: the head's weights as one or more blocks of vocabulary rows (each K,D); frozen ones cost no gradient.
    chunk: rows of logits to hold at a time.
    z_loss: weight of each row's squared log-normaliser, which is added to the sum and not to the rows.
    cap: logits become cap * tanh(logit / cap).
    """
    total, losses_T = _LinearCrossEntropy.apply(hidden_TD, targets_T, chunk or _rows(tables), z_loss, cap, *tables)
    return total, losses_T


@torch.no_grad()
def linear_log_probabilities(
    hidden_TD: Tensor,
    tables: tuple[Tensor, ...],
    targets_T: Tensor,
    chunk: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """The log-probability of each target (float32, T), chunk by chunk and without gradients: for scoring."""
    rows = chunk or _rows(tables)
    scores = [torch.empty(0, device=hidden_TD.device)]
    held = _room(hidden_TD, tables, rows)
    for hidden, targets in zip(hidden_TD.split(rows), targets_T[:, None].split(rows), strict=True):
        logits = _capped(_logits(hidden, tables, held), cap)
        scores.append((logits.gather(1, targets) - logits.logsumexp(-1, keepdim=True))[:, 0])
    return torch.cat(scores)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, targets_T: Tensor, chunk: int, z_loss: float, cap: float | None, *tables: Tensor
    ) -> tuple[Tensor, Tensor]:
        wants_hidden, wants_tables = ctx.needs_input_grad[0], ctx.needs_input_grad[5:]
        hidden_grads: list[Tensor] = []
        table_grads = [
            torch.zeros_like(table, dtype=torch.float32) if wanted else None  # sums over chunks need the precision
            for table, wanted in zip(tables, wants_tables, strict=True)
        ]
        total = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        losses = [torch.empty(0, device=hidden_TD.device)]
        held = _room(hidden_TD, tables, chunk)
        for hidden, targets in zip(hidden_TD.split(chunk), targets_T[:, None].split(chunk), strict=True):
            logits = _capped(_logits(hidden, tables, held), cap)
            slopes = None if cap is None else 1 - (logits / cap).square()
            largest, at_target = logits.amax(-1, keepdim=True), logits.gather(1, targets)
            # from here on `logits` becomes its own gradient: softmax, minus one at the target
            shares = logits.sub_(largest).exp_().sum(-1, keepdim=True)
            normaliser = shares.log() + largest
            logits.div_(shares)
            losses.append((normaliser - at_target)[:, 0])
            total += losses[-1].sum()
            if z_loss:
                total += z_loss * normaliser.square().sum()
                logits.mul_(1 + 2 * z_loss * normaliser)
            logits.scatter_add_(1, targets, torch.full_like(normaliser, -1.0))
            if slopes is not None:
                logits.mul_(slopes)
            parts = logits.to(hidden.dtype).split([len(table) for table in tables], -1)
            if wants_hidden:
                pieces = (part @ table.to(part.dtype) for part, table in zip(parts, tables, strict=True))
                hidden_grads.append(functools.reduce(torch.add, pieces))
            for part, grad in zip(parts, table_grads, strict=True):
                if grad is not None:
                    _add_product(grad, part.T, hidden)
        ctx.dtypes = [table.dtype for table in tables]
        ctx.save_for_backward(torch.cat(hidden_grads) if hidden_grads else torch.zeros_like(hidden_TD), *table_grads)
        losses_T = torch.cat(losses)
        ctx.mark_non_differentiable(losses_T)
        return total, losses_T

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, *table_grads = ctx.saved_tensors
        scaled = [
            None if saved is None else (saved * grad).to(dtype)
            for saved, dtype in zip(table_grads, ctx.dtypes, strict=True)
        ]
        return hidden_grad * grad.to(hidden_grad.dtype), None, None, None, None, *scaled


def _rows(tables: tuple[Tensor, ...]) -> int:
    return _chunk(sum(map(len, tables)), tables[0].device.type)


def _chunk(vocabulary: int, device: str) -> int:
    return max(CHUNK.get(device, CHUNK["cuda"]) // vocabulary, 1)


def _room(hidden_TD: Tensor, tables: tuple[Tensor, ...], chunk: int) -> Tensor:
    """Buffer that the logits of every chunk are written to, one after the other."""
    return torch.empty(min(chunk, len(hidden_TD)), sum(map(len, tables)), device=hidden_TD.device)


def _logits(hidden_TD: Tensor, tables: tuple[Tensor, ...], held: Tensor) -> Tensor:
    """Of all blocks side by side, in float32."""
    logits = held[: len(hidden_TD)]
    for part, table in zip(logits.split([len(table) for table in tables], -1), tables, strict=True):
        if hidden_TD.dtype == table.dtype == torch.float32:
            torch.mm(hidden_TD, table.T, out=part)
        else:
            part.copy_(hidden_TD @ table.to(hidden_TD.dtype).T)
    return logits


def _capped(logits: Tensor, cap: float | None) -> Tensor:
    """The logits, soft-capped in place."""
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, without a temporary where the types allow it."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
