"""Chunked cross-entropy equals the plain one and never holds all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lorgnette.model.ops.loss import CHUNK, linear_log_probabilities, linear_losses


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("rows", [(11,), (9, 2)])
@pytest.mark.parametrize("frozen", [False, True])
def test_equals_plain(chunk: int, rows: tuple, frozen: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    tables = tuple(torch.randn(count, 5, generator=generator).requires_grad_() for count in rows)
    tables[0].requires_grad_(not frozen)
    targets = torch.randint(0, 11, (7,), generator=generator)
    trained = [hidden, *(table for table in tables if table.requires_grad)]

    fast = linear_losses(hidden, tables, targets, chunk)[0]
    slow = F.cross_entropy(hidden @ torch.cat(tables).T, targets, reduction="sum")
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast * 0.3, trained), torch.autograd.grad(slow * 0.3, trained), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    scores = linear_log_probabilities(hidden, tables, targets, chunk)
    torch.testing.assert_close(-scores.sum(), slow)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_capped_logits_equal_plain_ones(chunk: int, z_loss: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    tables = tuple(torch.randn(count, 5, generator=generator).requires_grad_() for count in (9, 2))
    targets, trained = torch.randint(0, 11, (7,), generator=generator), (hidden, *tables)
    fast = linear_losses(hidden, tables, targets, chunk, z_loss=z_loss, cap=1.5)[0]
    logits = 1.5 * torch.tanh(hidden @ torch.cat(tables).T / 1.5)
    entropy = F.cross_entropy(logits, targets, reduction="sum")
    slow = entropy + z_loss * logits.logsumexp(-1).square().sum()
    torch.testing.assert_close(fast, slow)
    for ours, theirs in zip(torch.autograd.grad(fast, trained), torch.autograd.grad(slow, trained), strict=True):
        torch.testing.assert_close(ours, theirs)
    scores = linear_log_probabilities(hidden, tables, targets, chunk, cap=1.5)
    torch.testing.assert_close(-scores.sum(), entropy)


@pytest.mark.parametrize("chunk", [2, 100])
def test_z_loss_and_the_loss_of_each_row_equal_plain_ones(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    table = torch.randn(11, 5, generator=generator).requires_grad_()
    targets = torch.randint(0, 11, (7,), generator=generator)

    fast, losses = linear_losses(hidden, (table,), targets, chunk, z_loss=0.3)
    logits = hidden @ table.T
    rows = F.cross_entropy(logits, targets, reduction="none")
    slow = rows.sum() + 0.3 * logits.logsumexp(-1).square().sum()
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(losses, rows.detach())
    assert not losses.requires_grad
    for ours, theirs in zip(
        torch.autograd.grad(fast, [hidden, table]), torch.autograd.grad(slow, [hidden, table]), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_nothing_learned_is_zero_and_finite() -> None:
    hidden, table = torch.randn(0, 5, requires_grad=True), torch.randn(9, 5, requires_grad=True)
    loss = linear_losses(hidden, (table,), torch.empty(0, dtype=torch.int64))[0]
    loss.backward()
    assert loss.item() == 0
    assert table.grad is not None
    assert table.grad.abs().max() == 0


def test_half_precision() -> None:
    """bfloat16 states against float32 and bfloat16 rows: gradients of each in its own type, near the exact ones."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator).bfloat16().requires_grad_()
    tables = (
        torch.randn(30, 16, generator=generator).bfloat16().requires_grad_(),
        torch.randn(2, 16, generator=generator).requires_grad_(),
    )
    targets = torch.randint(0, 32, (40,), generator=generator)
    fast = linear_losses(hidden, tables, targets, 7)[0]
    exact = [x.detach().float().requires_grad_() for x in (hidden, *tables)]
    slow = F.cross_entropy(exact[0] @ torch.cat(exact[1:]).T, targets, reduction="sum")
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast, slow, atol=0.5, rtol=0.01)
    found, wanted = torch.autograd.grad(fast, (hidden, *tables)), torch.autograd.grad(slow, exact)
    for ours, theirs, tensor in zip(found, wanted, (hidden, *tables), strict=True):
        assert ours.dtype == tensor.dtype
        assert (ours.float() - theirs).norm() <= 0.02 * theirs.norm()


def test_never_holds_the_logits() -> None:
    """512 x 4096 logits would be 8 MiB; forward and backward allocate far less at once."""
    hidden, table = torch.randn(512, 8, requires_grad=True), torch.randn(4096, 8, requires_grad=True)
    targets = torch.randint(0, 4096, (512,))
    with torch.profiler.profile(profile_memory=True) as profile:
        linear_losses(hidden, (table,), targets, chunk=16)[0].backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2**20


def test_memory_does_not_grow_with_the_vocabulary() -> None:
    """Bytes held at most while the losses and their gradients are made, of a frozen table."""
    from lorgnette.train.planner.memory import TensorBytes

    rows, peaks = 1200, []
    for vocabulary in (2**12, 2**15):
        hidden, table = torch.randn(rows, 4, requires_grad=True), torch.randn(vocabulary, 4)
        with TensorBytes(0) as counter:
            linear_losses(hidden, (table,), torch.randint(0, vocabulary, (rows,)))[0].backward()
        peaks.append(counter.peak)
    assert max(peaks) < 1.05 * min(peaks)
    assert max(peaks) < 4 * CHUNK["cpu"] + 2**20
