"""Grouped fused attention equals the dense mask, forward and backward."""

from __future__ import annotations

import hypothesis
import pytest
import torch
import torch.nn.attention.varlen
from hypothesis import strategies as st
from torch import Tensor

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.ops.attention import attention, dense_attention, varlen
from lorgnette.model.ops.grouped_attention import _pieces, attention_of_rows

CASES = {
    "equal": ((4, 4, 4), (4, 4, 4), {}),
    "equal, causal": ((4, 4, 4), (4, 4, 4), {"causal": True}),
    "causal, several blocks": ((300, 2, 520, 300), (300, 2, 520, 300), {"causal": True}),
    "unequal": ((3, 5, 1, 5, 3), (3, 5, 1, 5, 3), {}),
    "unequal, causal": ((3, 5, 1, 5, 3), (3, 5, 1, 5, 3), {"causal": True}),
    "latents on patches": ((3, 3, 3), (9, 5, 9), {}),
    "cached, one new": ((1, 1, 1), (4, 9, 4), {"causal": True}),
    "cached, several new": ((2, 5, 2), (4, 9, 2), {"causal": True}),
    "window": ((9, 3, 9), (9, 3, 9), {"causal": True, "window": 4}),
    "window, several blocks": ((1100, 2, 600), (1100, 2, 600), {"causal": True, "window": 5}),
    "window, several blocks, cached": ((600, 3), (700, 3), {"causal": True, "window": 130}),
    "window as long as the spans": ((6, 3), (6, 3), {"causal": True, "window": 6}),
    "window of one": ((4, 2), (4, 2), {"causal": True, "window": 1}),
    "window, cached": ((1, 4), (7, 9), {"causal": True, "window": 3}),
    "empty spans": ((0, 3, 0), (0, 3, 2), {}),
    "one long among short": ((1040, 2, 3), (1040, 2, 3), {}),
    "nothing": ((), (), {}),
}
CAPPED = {
    "capped": ((3, 5, 1, 5), (3, 5, 1, 5), {"cap": 0.7}),
    "capped, causal": ((200, 2, 170, 200), (200, 2, 170, 200), {"causal": True, "cap": 0.7}),
    "capped, cached": ((1, 4, 1), (7, 9, 7), {"causal": True, "cap": 0.7}),
    "capped, window": ((600, 3), (700, 3), {"causal": True, "window": 130, "cap": 0.7}),
}
"""Scores that are capped, which no kernel computes."""


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize(("queries", "keys", "how"), (CASES | CAPPED).values(), ids=CASES | CAPPED)
def test_equals_dense(queries: tuple, keys: tuple, how: dict, heads: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    spans = SequenceLengths(queries), SequenceLengths(keys)
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
    spans = SequenceLengths((50,) * 6 + (30,) * 4)
    q, k, v = (torch.randn(spans.total, 2, 16) for _ in range(3))
    with torch.profiler.profile(profile_memory=True) as profile:
        attention(q, k, v, spans, spans)
    made = sum(max(event.self_device_memory_usage, event.self_cpu_memory_usage, 0) for event in profile.events())
    assert made <= 3 * q.numel() * q.element_size()  # stacks' outputs, their concatenation, and log-sums


@pytest.mark.parametrize(("heads", "threads", "pieces"), [(3, 2, 2), (4, 2, 1), (16, 32, 2), (1, 4, 4), (64, 8, 1)])
def test_few_heads_are_cut_to_fill_the_threads(monkeypatch, heads: int, threads: int, pieces: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert _pieces(heads, 4900) == pieces
    assert _pieces(heads, 700) == 1


def test_scores_are_capped_in_half_precision_too() -> None:
    """Within the rounding of bfloat16, as the softmax is of float32."""
    spans, generator = SequenceLengths((90, 3)), torch.Generator().manual_seed(0)
    inputs = [torch.randn(93, heads, 8, generator=generator) for heads in (4, 2, 2)]
    how = {"causal": True, "cap": 0.7}
    exact = dense_attention(*inputs, spans, spans, **how)
    found = attention(*(x.bfloat16() for x in inputs), spans, spans, **how)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.03, rtol=0.03)


def test_a_cap_that_is_never_reached_changes_nothing() -> None:
    spans = SequenceLengths((30, 3))
    inputs = [torch.randn(33, heads, 8) for heads in (4, 2, 2)]
    plain, capped = (attention(*inputs, spans, spans, causal=True, cap=cap) for cap in (None, 1e4))
    torch.testing.assert_close(capped, plain, atol=1e-5, rtol=1e-5)


def test_cut_spans_equal_dense(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    spans, generator = SequenceLengths((1050,)), torch.Generator().manual_seed(0)
    inputs = [torch.randn(1050, heads, 8, generator=generator).requires_grad_() for heads in (3, 1, 1)]
    fast, slow = attention(*inputs, spans, spans), dense_attention(*inputs, spans, spans)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@hypothesis.given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 6),
)
def test_any_spans_equal_dense(lengths: list, causal: bool, window: int | None) -> None:
    queries = SequenceLengths(tuple(new for new, _ in lengths))
    keys = SequenceLengths(tuple(new + past if causal else past + 1 for new, past in lengths))
    q, k, v = torch.randn(queries.total, 4, 8), torch.randn(keys.total, 2, 8), torch.randn(keys.total, 2, 8)
    how = {"causal": causal, "window": window if causal else None}
    torch.testing.assert_close(
        attention(q, k, v, queries, keys, **how), dense_attention(q, k, v, queries, keys, **how), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("window", "cap"), [(None, None), (1, None), (70, None), (70, 0.7), (None, 0.7)])
@pytest.mark.parametrize("share", [1.0, 0.4, 0.02, 0.0])
def test_some_queries_get_what_all_would_give_them(window: int | None, cap: float | None, share: float) -> None:
    """Blocks of them end anywhere in their document; documents without any are only seen."""
    spans, generator = SequenceLengths((300, 2, 0, 9, 420, 1)), torch.Generator().manual_seed(0)
    inputs = [torch.randn(spans.total, heads, 8, generator=generator).requires_grad_() for heads in (4, 2, 2)]
    wanted = torch.rand(spans.total, generator=generator) < share
    wanted[302:311] = False
    rows = wanted.nonzero()[:, 0]
    q, k, v = inputs
    fast = attention_of_rows(q[rows], k, v, rows, spans, window=window, cap=cap)
    slow = dense_attention(q, k, v, spans, spans, causal=True, window=window, cap=cap)[rows]
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    weights = torch.randn(fast.shape, generator=generator)
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), inputs) for out in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor,
    key_starts: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor | None,
) -> Tensor:
    """`varlen_attn` as torch documents it, in plain steps, for a machine without its kernels."""
    assert enable_gqa == (query.shape[1] != key.shape[1])
    out = torch.empty_like(query)
    for index in range(len(query_starts) - 1):
        rows, start = slice(*query_starts[index : index + 2]), int(key_starts[index])
        count = int(key_starts[index + 1]) - start if seqused_k is None else int(seqused_k[index])
        assert rows.stop - rows.start <= longest_query
        assert count <= longest_key
        k, v = (x[start : start + count].repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        offset = torch.arange(count)[None] - torch.arange(count - int(rows.stop - rows.start), count)[:, None]
        left, right = window_size
        hidden = torch.zeros_like(offset, dtype=torch.bool)
        hidden |= (offset > right) if right >= 0 else False
        hidden |= (offset < -left) if left >= 0 else False
        scores = torch.einsum("thn,shn->hts", query[rows], k) * query.shape[-1] ** -0.5
        out[rows] = torch.einsum("hts,shn->thn", scores.masked_fill(hidden, float("-inf")).softmax(-1), v)
    return out


@pytest.mark.parametrize(("queries", "keys", "how"), CASES.values(), ids=CASES)
def test_kernels_are_asked_for_the_same(monkeypatch, queries: tuple, keys: tuple, how: dict) -> None:
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", kernel)
    spans, how = (SequenceLengths(queries), SequenceLengths(keys)), {"causal": False, "window": None} | how
    q, k, v = (torch.randn(span.total, heads, 8) for span, heads in zip((*spans, spans[1]), (4, 2, 2), strict=True))
    torch.testing.assert_close(varlen(q, k, v, *spans, **how), dense_attention(q, k, v, *spans, **how))


def test_spans_see_only_themselves() -> None:
    """Changing the keys of one span changes no bit of another's output."""
    spans = SequenceLengths((5, 7, 5, 2))
    q, k, v = (torch.randn(spans.total, 2, 8) for _ in range(3))
    before = attention(q, k, v, spans, spans)
    k[5:12], v[5:12] = 9.0, 9.0
    after = attention(q, k, v, spans, spans)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[12:], after[12:])
    assert not torch.equal(before[5:12], after[5:12])
