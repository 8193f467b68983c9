"""Boolean masks of attention within one sequence: causal, and causal within a sliding window."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(length: int, keys: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Mask of one sequence: True where a query may attend to a key (bool: length, keys).

    causal: the last query is aligned with the last key. window: see `causal_mask`.
    """
    if not causal:
        return torch.ones(length, keys, dtype=torch.bool, device=device)
    return causal_mask(torch.arange(keys - length, keys, device=device), torch.arange(keys, device=device), window)


def causal_mask(queries_T: Tensor, keys_S: Tensor, window: int | None) -> Tensor:
    """Causal mask from the positions of queries and keys (bool: T,S).

    window: a query attends to at most this many keys, its own included; None for all before it.
    """
    distance_TS = queries_T[:, None] - keys_S
    return (distance_TS >= 0) if window is None else (distance_TS >= 0) & (distance_TS < window)
