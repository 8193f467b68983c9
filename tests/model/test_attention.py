"""Grouped fused attention equals the dense mask, forward and backward."""

from __future__ import annotations

import pytest
import torch

from lorgnette.model.attention import attention, dense_attention
from lorgnette.model.batch import Spans

CASES = {
    "equal": ((4, 4, 4), (4, 4, 4), {}),
    "equal, causal": ((4, 4, 4), (4, 4, 4), {"causal": True}),
    "unequal": ((3, 5, 1, 5, 3), (3, 5, 1, 5, 3), {}),
    "unequal, causal": ((3, 5, 1, 5, 3), (3, 5, 1, 5, 3), {"causal": True}),
    "latents on patches": ((3, 3, 3), (9, 5, 9), {}),
    "cached, one new": ((1, 1, 1), (4, 9, 4), {"causal": True}),
    "cached, several new": ((2, 5, 2), (4, 9, 2), {"causal": True}),
    "window": ((9, 3, 9), (9, 3, 9), {"causal": True, "window": 4}),
    "window, long": ((33, 2, 33, 21), (33, 2, 33, 21), {"causal": True, "window": 5}),
    "window as long as the spans": ((6, 3), (6, 3), {"causal": True, "window": 6}),
    "window of one": ((4, 2), (4, 2), {"causal": True, "window": 1}),
    "window, cached": ((1, 4), (7, 9), {"causal": True, "window": 3}),
    "empty spans": ((0, 3, 0), (0, 3, 2), {}),
    "one long among short": ((70, 2, 3, 4), (70, 2, 3, 4), {}),
    "nothing": ((), (), {}),
}


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize(("queries", "keys", "how"), CASES.values(), ids=CASES)
def test_equals_dense(queries: tuple, keys: tuple, how: dict, heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    spans = Spans(queries), Spans(keys)
    shapes = (spans[0].total, heads, 8), (spans[1].total, kv_heads, 8), (spans[1].total, kv_heads, 8)
    inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    fast, slow = attention(*inputs, *spans, **how), dense_attention(*inputs, *spans, **how)
    assert fast.shape == slow.shape == inputs[0].shape
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    if not queries:
        return
    weights = torch.randn(fast.shape, generator=generator)
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), inputs) for out in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_neighbouring_equal_spans_are_not_copied() -> None:
    """Stacks of neighbours are views: the memory of a call is its output and little else."""
    spans = Spans((50,) * 6 + (30,) * 4)
    q, k, v = (torch.randn(spans.total, 2, 16) for _ in range(3))
    with torch.profiler.profile(profile_memory=True) as profile:
        attention(q, k, v, spans, spans)
    made = sum(max(event.self_device_memory_usage, event.self_cpu_memory_usage, 0) for event in profile.events())
    assert made <= 3 * q.numel() * q.element_size()  # stacks' outputs, their concatenation, and log-sums


def test_spans_see_only_themselves() -> None:
    """Changing the keys of one span changes no bit of another's output."""
    spans = Spans((5, 7, 5, 2))
    q, k, v = (torch.randn(spans.total, 2, 8) for _ in range(3))
    before = attention(q, k, v, spans, spans)
    k[5:12], v[5:12] = 9.0, 9.0
    after = attention(q, k, v, spans, spans)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[12:], after[12:])
    assert not torch.equal(before[5:12], after[5:12])
