"""Attention over spans that lie end to end: one entry for images, latents and documents, on every device.

CUDA runs `torch.nn.attention.varlen`. The CPU runs one fused call per group of equal-length spans, on views where
equal spans are neighbours. `dense_attention` spells the same thing with an explicit mask: slow, and the tests' oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lorgnette.model.batch import Spans


def attention(
    q_THN: Tensor,
    k_SGN: Tensor,
    v_SGN: Tensor,
    queries: Spans,
    keys: Spans,
    *,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """Softmax attention in which span i of the queries sees span i of the keys and nothing else. Returns T,H,N.

    causal: the last query of a span is aligned with its last key, so that cached keys come before the queries.
    window: a query sees at most this many keys, its own included (needs `causal`).
    H is a multiple of G: neighbouring query heads share a key-value head.
    """
    if q_THN.is_cuda:
        return _varlen(q_THN, k_SGN, v_SGN, queries, keys, causal, window)
    if not queries.total:
        return q_THN + 0 * (k_SGN.sum() + v_SGN.sum())  # nothing to see, but the graph stays whole
    plan = _plan(queries, keys)
    q_THN, k_SGN, v_SGN = plan.sort_queries(q_THN), plan.sort_keys(k_SGN), plan.sort_keys(v_SGN)
    stacks = zip(
        plan.groups,
        q_THN.split([group.count * group.queries for group in plan.groups]),
        k_SGN.split([group.count * group.keys for group in plan.groups]),
        v_SGN.split([group.count * group.keys for group in plan.groups]),
        strict=True,
    )
    return plan.unsort_queries(torch.cat([_stack(group, q, k, v, causal, window) for group, q, k, v in stacks]))


def dense_attention(
    q_THN: Tensor,
    k_SGN: Tensor,
    v_SGN: Tensor,
    queries: Spans,
    keys: Spans,
    *,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """The oracle: as `attention`, by one dense mask over all queries and keys."""
    mask_TS = torch.zeros(queries.total, keys.total, dtype=torch.bool, device=q_THN.device)
    for index, (length, key_length) in enumerate(zip(queries.lengths, keys.lengths, strict=True)):
        rows = slice(queries.starts[index], queries.starts[index] + length)
        columns = slice(keys.starts[index], keys.starts[index] + key_length)
        mask_TS[rows, columns] = visible(length, key_length, causal, window, q_THN.device)
    repeat = q_THN.shape[1] // k_SGN.shape[1]
    k_SHN, v_SHN = k_SGN.repeat_interleave(repeat, 1), v_SGN.repeat_interleave(repeat, 1)
    scores_HTS = torch.einsum("thn,shn->hts", q_THN, k_SHN) * q_THN.shape[-1] ** -0.5
    weights_HTS = scores_HTS.masked_fill(~mask_TS, float("-inf")).softmax(-1)
    return torch.einsum("hts,shn->thn", weights_HTS, v_SHN)


def visible(length: int, keys: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Which of its `keys` each of `length` queries of one span sees (bool: length, keys)."""
    if not causal:
        return torch.ones(length, keys, dtype=torch.bool, device=device)
    position = torch.arange(keys - length, keys, device=device)[:, None]
    distance = position - torch.arange(keys, device=device)
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


@dataclass(frozen=True)
class _Group:
    """`count` spans, each of `queries` queries on `keys` keys."""

    count: int
    queries: int
    keys: int


@dataclass(frozen=True)
class _Plan:
    """The order in which spans of equal lengths are neighbours, and the groups they then form."""

    queries: Spans
    keys: Spans

    @cached_property
    def order(self) -> list[int]:
        shapes = list(zip(self.queries.lengths, self.keys.lengths, strict=True))
        runs = [shape for index, shape in enumerate(shapes) if index == 0 or shape != shapes[index - 1]]
        if len(runs) == len(set(runs)):  # equal spans are neighbours already
            return list(range(len(shapes)))
        return sorted(range(len(shapes)), key=shapes.__getitem__)

    @cached_property
    def groups(self) -> list[_Group]:
        counts: dict[tuple[int, int], int] = {}
        for index in self.order:
            shape = self.queries.lengths[index], self.keys.lengths[index]
            counts[shape] = counts.get(shape, 0) + 1
        return [_Group(count, *shape) for shape, count in counts.items()]

    @cached_property
    def _query_rows(self) -> Tensor | None:
        return _rows(self.queries, self.order)

    @cached_property
    def _key_rows(self) -> Tensor | None:
        return _rows(self.keys, self.order)

    @cached_property
    def _query_homes(self) -> Tensor | None:
        return None if self._query_rows is None else torch.argsort(self._query_rows)

    def sort_queries(self, q_THN: Tensor) -> Tensor:
        return q_THN if self._query_rows is None else q_THN.index_select(0, self._query_rows)

    def sort_keys(self, k_SGN: Tensor) -> Tensor:
        return k_SGN if self._key_rows is None else k_SGN.index_select(0, self._key_rows)

    def unsort_queries(self, out_THN: Tensor) -> Tensor:
        return out_THN if self._query_homes is None else out_THN.index_select(0, self._query_homes)


@lru_cache(maxsize=64)
def _plan(queries: Spans, keys: Spans) -> _Plan:
    return _Plan(queries, keys)


def _rows(spans: Spans, order: list[int]) -> Tensor | None:
    """The row numbers of `spans` taken in `order`; None where that changes nothing."""
    if order == list(range(len(spans))):
        return None
    return torch.cat([torch.arange(spans.starts[index], spans.starts[index + 1]) for index in order])


def _stack(group: _Group, q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, causal: bool, window: int | None) -> Tensor:
    """One fused call for a stack of equal-length spans."""
    if not group.queries:
        return q_THN
    heads, kv_heads, width = q_THN.shape[1], k_SGN.shape[1], q_THN.shape[2]
    q_BHTN = q_THN.view(group.count, group.queries, heads, width).transpose(1, 2)
    k_BGSN = k_SGN.view(group.count, group.keys, kv_heads, width).transpose(1, 2)
    v_BGSN = v_SGN.view(group.count, group.keys, kv_heads, width).transpose(1, 2)
    mask_TS = None
    windowed = window is not None and window < group.keys
    square = group.queries == group.keys
    if causal and (windowed or not square) and (windowed or group.queries > 1):
        mask_TS = visible(group.queries, group.keys, causal, window, q_THN.device)
    out_BHTN = F.scaled_dot_product_attention(
        q_BHTN,
        k_BGSN,
        v_BGSN,
        attn_mask=mask_TS,
        is_causal=causal and square and mask_TS is None and group.queries > 1,
        enable_gqa=heads != kv_heads,
    )
    return out_BHTN.transpose(1, 2).reshape(q_THN.shape)


def _varlen(
    q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, queries: Spans, keys: Spans, causal: bool, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    left = -1 if window is None else window - 1
    out = varlen_attn(
        q_THN,
        k_SGN,
        v_SGN,
        queries.starts_on(q_THN.device),
        keys.starts_on(q_THN.device),
        queries.longest,
        keys.longest,
        window_size=(left, 0) if causal else (-1, -1),
        enable_gqa=q_THN.shape[1] != k_SGN.shape[1],
    )
    assert isinstance(out, Tensor)  # a tuple only where auxiliary outputs are asked for
    return out
