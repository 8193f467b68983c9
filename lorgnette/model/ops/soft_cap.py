"""Soft caps of scores, and attention with capped scores, which no fused kernel of torch computes (Gemma 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_cap(scores: Tensor, cap: float) -> Tensor:
    """cap * tanh(scores / cap): nearly the scores where they are small, and never beyond the cap."""
    return torch.tanh(scores / cap) * cap


def capped_attention(q_BHTN: Tensor, k_BGSN: Tensor, v_BGSN: Tensor, mask_TS: Tensor | None, cap: float) -> Tensor:
    """As `F.scaled_dot_product_attention`, on scores that are capped before the softmax. Returns B,H,T,N.

    All scores of a call are held, and for the backward pass: callers give it blocks of queries.
    mask_TS: True where a query sees a key, or what is added to its score; one for all, or B,1,T,S.
    Softmax is of float32.
    """
    q_BGRTN = q_BHTN.unflatten(1, (k_BGSN.shape[1], -1))
    scores = soft_cap(q_BGRTN @ k_BGSN[:, :, None].mT * q_BHTN.shape[-1] ** -0.5, cap)
    if mask_TS is not None and mask_TS.ndim == 4:
        mask_TS = mask_TS[:, :, None]
    if mask_TS is not None and mask_TS.dtype == torch.bool:
        scores = scores.masked_fill(~mask_TS, float("-inf"))
    elif mask_TS is not None:
        scores = scores + mask_TS
    shares = scores.softmax(-1, dtype=torch.float32).to(v_BGSN.dtype)
    return (shares @ v_BGSN[:, :, None]).flatten(1, 2)
