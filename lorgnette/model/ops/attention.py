"""Attention over sequences that lie end to end: one entry for images, latents and documents, on every device.

CUDA in half precision runs `torch.nn.attention.varlen`; everything else `grouped_attention`, and so do soft-capped
scores everywhere: no kernel takes a cap. `dense_attention` computes the same with an explicit mask.
"""

from __future__ import annotations

import torch
import torch.nn.attention.varlen
from torch import Tensor

from lorgnette.model.batch import SequenceLengths
from lorgnette.model.ops.grouped_attention import grouped_attention
from lorgnette.model.ops.masks import attention_mask


def attention(
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
    """Softmax attention in which span i of the queries sees span i of the keys and nothing else. Returns T,H,N.

    causal: the last query of a span is aligned with its last key, so that cached keys come before the queries.
    window: a query sees at most this many keys, its own included (needs `causal`).
    cap: scores become cap * tanh(score / cap) before the softmax.
    H is a multiple of G: neighbouring query heads share a key-value head.
    """
    if not queries.total:
        return q_THN + 0 * (k_SGN.sum() + v_SGN.sum())  # nothing to attend to, but the graph stays whole
    if cap is None and has_varlen(q_THN):
        return varlen(q_THN, k_SGN, v_SGN, queries, keys, causal=causal, window=window)
    return grouped_attention(q_THN, k_SGN, v_SGN, queries, keys, causal=causal, window=window, cap=cap)


def dense_attention(
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
    """The plain version of `attention`: one dense mask over all queries and keys. Slow; the oracle of its tests."""
    mask_TS = torch.zeros(queries.total, keys.total, dtype=torch.bool, device=q_THN.device)
    for index, (length, key_length) in enumerate(zip(queries.lengths, keys.lengths, strict=True)):
        rows = slice(queries.starts[index], queries.starts[index] + length)
        columns = slice(keys.starts[index], keys.starts[index] + key_length)
        mask_TS[rows, columns] = attention_mask(length, key_length, causal, window, q_THN.device)
    repeat = q_THN.shape[1] // k_SGN.shape[1]
    k_SHN, v_SHN = k_SGN.repeat_interleave(repeat, 1), v_SGN.repeat_interleave(repeat, 1)
    scores_HTS = torch.einsum("thn,shn->hts", q_THN, k_SHN) * q_THN.shape[-1] ** -0.5
    scores_HTS = scores_HTS if cap is None else cap * torch.tanh(scores_HTS / cap)
    weights_HTS = scores_HTS.masked_fill(~mask_TS, float("-inf")).softmax(-1)
    return torch.einsum("hts,shn->thn", weights_HTS, v_SHN)


def has_varlen(q_THN: Tensor) -> bool:
    """Return whether the variable-length kernel takes these tensors."""
    return q_THN.is_cuda and q_THN.dtype in (torch.float16, torch.bfloat16)


def varlen(
    q_THN: Tensor,
    k_SGN: Tensor,
    v_SGN: Tensor,
    queries: SequenceLengths,
    keys: SequenceLengths,
    *,
    causal: bool,
    window: int | None,
    used: SequenceLengths | None = None,
) -> Tensor:
    """As `attention`, by one kernel. used: how many keys, from the start of each span of `keys`, are there."""
    device = q_THN.device
    out = torch.nn.attention.varlen.varlen_attn(
        q_THN,
        k_SGN,
        v_SGN,
        queries.starts_on(device),
        keys.starts_on(device),
        queries.longest,
        (used or keys).longest,
        window_size=(-1 if window is None else window - 1, 0) if causal else (-1, -1),
        enable_gqa=q_THN.shape[1] != k_SGN.shape[1],
        seqused_k=None if used is None else used.lengths_on(device),
    )
    assert isinstance(out, Tensor)  # a tuple only where auxiliary outputs are asked for
    return out


def attends_by_rows(x_TD: Tensor) -> bool:
    """Return whether `attention_of_rows` serves this tensor: elsewhere, kernels take whole sequences of queries."""
    return x_TD.device.type == "cpu"
