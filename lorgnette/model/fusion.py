"""How visual tokens meet the text."""

from __future__ import annotations

from torch import Tensor


def fuse(tokens_TD: Tensor, visual_VD: Tensor, visual_V: Tensor) -> Tensor:
    """Fully autoregressive fusion: visual tokens take their places `visual_V` in the sequence (paper §2, Figure 2)."""
    return tokens_TD.index_copy(0, visual_V, visual_VD.to(tokens_TD.dtype))
