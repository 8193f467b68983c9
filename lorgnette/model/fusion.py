"""Fusions: the ways in which visual tokens reach the decoder (paper §2, Table 3).

To add one, write a `Fusion` here, its settings in `config.py`, and its row in `FUSIONS`.
"""

from __future__ import annotations

from torch import Tensor

from lorgnette.model.config import VLMConfig
from lorgnette.model.context import Context, VisualTokens
from lorgnette.model.layers import Stack


class Fusion(Stack):
    """Base class of fusions. A subclass merges visual tokens into the sequence, or attends to them between layers."""

    def __init__(self, config: VLMConfig):
        super().__init__()
        self.config = config

    def forward(self, tokens_TD: Tensor, visual: VisualTokens) -> Tensor:
        """Input of the decoder, T,D. As it is, the embedded tokens: nothing of the images is in the sequence."""
        return tokens_TD

    def before(self, layer: int, x_TD: Tensor, context: Context) -> Tensor:
        """Input of decoder layer `layer`, T,D, from the output of the one before: where cross-attention blocks run.

        A block finds the visual tokens, and which tokens see which, in `context.visual`, and those of a document that
        is continued in `context.cache.images`.
        """
        return x_TD


class Autoregressive(Fusion):
    """Fully autoregressive fusion: visual tokens take the places of their slots in the sequence (Figure 2)."""

    def forward(self, tokens_TD: Tensor, visual: VisualTokens) -> Tensor:
        return tokens_TD.index_copy(0, visual.slots, visual.states_VD.to(tokens_TD.dtype))


FUSIONS: dict[str, type[Fusion]] = {"autoregressive": Autoregressive}
"""The class of each kind of fusion."""


def build_fusion(config: VLMConfig) -> Fusion:
    """The fusion of a model with these settings."""
    return FUSIONS[config.fusion](config)
