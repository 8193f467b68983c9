"""Attention without a variable-length kernel: one fused call for each group of sequences of equal length.

Groups are views where sequences of equal length are neighbours already. On a CPU, causal sequences are cut in blocks of
queries, and long ones in pieces that keep all threads busy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.ops.masks import attention_mask, causal_mask
from lorgnette.model.ops.soft_cap import capped_attention

_LONG = 1024
"""Queries from which on it pays to cut a span for the sake of the threads."""
_BLOCK = 512
"""Queries of one masked call within a window, if the window is not longer or all scores of a call are held."""
CAUSAL_BLOCK = 80
"""Queries of one call on all keys before them. On a CPU one causal call computes nearly the whole square: a span of 200
to 500 takes a tenth to a quarter less time by blocks, forward and backward; one of two blocks gains nothing."""


def grouped_attention(
    q_THN: Tensor,
    k_SGN: Tensor,
    v_SGN: Tensor,
    queries: SequenceLengths,
    keys: SequenceLengths,
    *,
    causal: bool = False,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """As `attention`, by one call of torch's fused attention for each pair of lengths (queries, keys)."""
    plan = _plan(queries, keys, q_THN.device)
    q_THN, k_SGN, v_SGN = plan.sort_queries(q_THN), plan.sort_keys(k_SGN), plan.sort_keys(v_SGN)
    stacks = zip(
        plan.groups,
        q_THN.split([group.count * group.queries for group in plan.groups]),
        k_SGN.split([group.count * group.keys for group in plan.groups]),
        v_SGN.split([group.count * group.keys for group in plan.groups]),
        strict=True,
    )
    return plan.unsort_queries(torch.cat([_stack(group, q, k, v, causal, window, cap) for group, q, k, v in stacks]))


def attention_of_rows(
    q_RHN: Tensor,
    k_TGN: Tensor,
    v_TGN: Tensor,
    rows_R: Tensor,
    documents: SequenceLengths,
    *,
    window: int | None = None,
    cap: float | None = None,
) -> Tensor:
    """Causal attention of some tokens only: the rows `rows_R` (ascending) of what `attention` returns. R,H,N.

    q_RHN: queries of these tokens. For a CPU: the rows are read on the host.
    """
    if not len(rows_R):
        return q_RHN + 0 * (k_TGN.sum() + v_TGN.sum())  # as in `attention`
    ends = torch.searchsorted(rows_R, documents.starts_on(q_RHN.device).long()).tolist()
    stacks = (k_TGN.split(documents.lengths), v_TGN.split(documents.lengths))
    out = []
    for first, end, start, k_SGN, v_SGN in zip(ends[:-1], ends[1:], documents.starts[:-1], *stacks, strict=True):
        for some in range(first, end, CAUSAL_BLOCK):
            block = slice(some, min(some + CAUSAL_BLOCK, end))
            positions = rows_R[block] - start
            oldest = 0 if window is None else max(int(positions[0]) - window + 1, 0)
            keys = slice(oldest, int(positions[-1]) + 1)
            mask_TS = causal_mask(positions, torch.arange(keys.start, keys.stop), window)
            q_BHTN, k_BGSN, v_BGSN = (x[None].transpose(1, 2) for x in (q_RHN[block], k_SGN[keys], v_SGN[keys]))
            out.append(fused_attention(q_BHTN, k_BGSN, v_BGSN, mask_TS, cap=cap)[0])
    return torch.cat(out)


@dataclass(frozen=True)
class _Group:
    """`count` spans, each of `queries` queries on `keys` keys."""

    count: int
    queries: int
    keys: int


@dataclass(frozen=True)
class _Plan:
    """The order in which spans of equal lengths are neighbours, and the groups they then form."""

    queries: SequenceLengths
    keys: SequenceLengths
    device: torch.device

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
        return _rows(self.queries, self.order, self.device)

    @cached_property
    def _key_rows(self) -> Tensor | None:
        return _rows(self.keys, self.order, self.device)

    @cached_property
    def _query_homes(self) -> Tensor | None:
        rows = self._query_rows
        with torch.inference_mode(False):  # it is kept: a later training step may use it
            return None if rows is None else torch.argsort(rows)

    def sort_queries(self, q_THN: Tensor) -> Tensor:
        return q_THN if self._query_rows is None else q_THN.index_select(0, self._query_rows)

    def sort_keys(self, k_SGN: Tensor) -> Tensor:
        return k_SGN if self._key_rows is None else k_SGN.index_select(0, self._key_rows)

    def unsort_queries(self, out_THN: Tensor) -> Tensor:
        return out_THN if self._query_homes is None else out_THN.index_select(0, self._query_homes)


@lru_cache(maxsize=64)
def _plan(queries: SequenceLengths, keys: SequenceLengths, device: torch.device) -> _Plan:
    return _Plan(queries, keys, device)


def _rows(spans: SequenceLengths, order: list[int], device: torch.device) -> Tensor | None:
    """The row numbers of `spans` taken in `order`; None where that changes nothing."""
    if order == list(range(len(spans))):
        return None
    with torch.inference_mode(False):  # they are kept: a later training step may use them
        return torch.cat([torch.arange(spans.starts[index], spans.starts[index + 1]) for index in order]).to(device)


def _stack(
    group: _Group,
    q_THN: Tensor,
    k_SGN: Tensor,
    v_SGN: Tensor,
    causal: bool,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """One fused call for a stack of equal-length spans."""
    if not group.queries:
        return q_THN
    if causal and window is not None and window < group.keys:
        return _in_blocks(group, q_THN, k_SGN, v_SGN, window, _BLOCK if cap else max(window, _BLOCK), cap)
    square, mask_TS = group.queries == group.keys, None
    in_blocks = cap is not None or q_THN.device.type == "cpu"
    if causal and square and group.queries > 2 * CAUSAL_BLOCK and in_blocks:
        return _in_blocks(group, q_THN, k_SGN, v_SGN, group.keys, CAUSAL_BLOCK, cap)
    if causal and group.queries > 1 and not (square and cap is None):
        mask_TS = attention_mask(group.queries, group.keys, True, None, q_THN.device)
    pieces = 1 if causal or group.count > 1 else _pieces(q_THN.shape[1], group.queries)
    q_BHTN = q_THN.unflatten(0, (group.count * pieces, -1)).transpose(1, 2)
    k_BGSN, v_BGSN = (x.unflatten(0, (group.count, -1)).transpose(1, 2) for x in (k_SGN, v_SGN))
    if pieces > 1:
        k_BGSN, v_BGSN = (x.expand(pieces, -1, -1, -1) for x in (k_BGSN, v_BGSN))
    is_causal = causal and square and group.queries > 1 and cap is None
    return fused_attention(q_BHTN, k_BGSN, v_BGSN, mask_TS, causal=is_causal, cap=cap).flatten(0, 1)


def _in_blocks(
    group: _Group, q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, window: int, block: int, cap: float | None
) -> Tensor:
    """Causal attention within a window, by blocks of queries on the keys that they see."""
    q_BHTN, k_BGSN, v_BGSN = (x.unflatten(0, (group.count, -1)).transpose(1, 2) for x in (q_THN, k_SGN, v_SGN))
    out, past = [], group.keys - group.queries
    for start in range(0, group.queries, block):
        end = min(start + block, group.queries)
        first = max(past + start - window + 1, 0)
        keys = slice(first, past + end)
        mask_TS = _mask(end - start, past + end - first, window if window < group.keys else None, q_THN)
        block_BHTN = q_BHTN[:, :, start:end]
        out.append(fused_attention(block_BHTN, k_BGSN[:, :, keys], v_BGSN[:, :, keys], mask_TS, cap=cap))
    return torch.cat(out, 1).flatten(0, 1)


def _mask(length: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """`attention_mask`, causal; without a window as the view of a mask that is kept."""
    if window is not None or length > CAUSAL_BLOCK:
        return attention_mask(length, keys, True, window, like.device)
    return _causal_bias(1 << (keys - 1).bit_length(), like.device, like.dtype)[-length:, -keys:]


@lru_cache(maxsize=16)
def _causal_bias(keys: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 where the last queries of so many keys see, else -inf: what the fused call makes of a bool mask, every time."""
    with torch.inference_mode(False):  # it is kept: a later training step may use it
        hidden_TS = ~attention_mask(CAUSAL_BLOCK, max(keys, CAUSAL_BLOCK), True, None, device)
        return torch.zeros(hidden_TS.shape, device=device, dtype=dtype).masked_fill(hidden_TS, float("-inf"))


def fused_attention(
    q_BHTN: Tensor,
    k_BGSN: Tensor,
    v_BGSN: Tensor,
    mask_TS: Tensor | None,
    *,
    causal: bool = False,
    cap: float | None = None,
) -> Tensor:
    """torch's fused attention, or the plain one where scores are capped. Returns B,T,H,N."""
    if cap is not None:
        assert not causal  # callers say what is seen by the mask
        return capped_attention(q_BHTN, k_BGSN, v_BGSN, mask_TS, cap).transpose(1, 2)
    out_BHTN = F.scaled_dot_product_attention(
        q_BHTN,
        k_BGSN,
        v_BGSN,
        attn_mask=mask_TS,
        is_causal=causal,
        enable_gqa=q_BHTN.shape[1] != k_BGSN.shape[1],
    )
    return out_BHTN.transpose(1, 2)


def _pieces(heads: int, queries: int) -> int:
    """Into how many pieces to cut the queries of one long span, so that its heads keep all threads busy.

    The backward pass on the CPU is one task for each head: three heads on two threads would leave one idle for a third
    of the time.
    """
    threads = torch.get_num_threads()
    if queries < _LONG or heads >= 4 * threads:
        return 1
    choices = [pieces for pieces in range(1, 2 * threads + 1) if queries % pieces == 0]
    return min(choices, key=lambda pieces: (math.ceil(heads * pieces / threads) / pieces, pieces))
