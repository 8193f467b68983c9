"""Fusions: the ways in which visual tokens reach the decoder (paper §2, Table 3).

To add one, write a `Fusion` here, its settings in `fusion_config.py`, and its row in `FUSIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.context import CachedDocuments, Context
from lorgnette.model.layers import MLP, RMSNorm, Stack, SwiGLU, norm_of
from lorgnette.model.ops.attention import attention
from lorgnette.model.sight import SeenBefore, SeenImages, Sight, VisualTokens


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
        is continued in `context.cache.images_of`.
        """
        return x_TD

    def keys_values(self, states_VD: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values of visual tokens for every block (S,G,N), by the decoder layer that it stands before."""
        return {}


class Autoregressive(Fusion):
    """Fully autoregressive fusion: visual tokens take the places of their slots in the sequence (Figure 2)."""

    def __init__(self, config: VLMConfig):
        super().__init__(config)
        config.check_token_width()

    def forward(self, tokens_TD: Tensor, visual: VisualTokens) -> Tensor:
        return tokens_TD.index_copy(0, visual.slots, visual.states_VD.to(tokens_TD.dtype))


class CrossAttention(Fusion):
    """Gated blocks between the layers of a decoder that may stay frozen (Flamingo, Idefics1; the paper's §3.2)."""

    def __init__(self, config: VLMConfig):
        super().__init__(config)
        assert isinstance(config.fusion, CrossAttentionConfig)
        self.settings, language = config.fusion.fitted(config.language), config.language
        self.every, self.first = self.settings.every, self.settings.first
        self.decoder_layers = language.layers
        """Layers by which the first weights are scaled, and not the blocks' own."""
        blocks = self.settings.blocks(language.layers)
        self.layers = nn.ModuleList(GatedBlock(self.settings, language, config.visual_width) for _ in range(blocks))

    def blocks(self) -> Iterable[nn.Module]:
        return self.layers

    def shorten(self, layers: int) -> int:
        left_out = super().shorten(layers)
        self.every, self.first = 1, 0  # so that each of those that are left stands before a layer of a short decoder
        return left_out

    def before(self, layer: int, x_TD: Tensor, context: Context) -> Tensor:
        index, past = divmod(layer - self.first, self.every)
        if past or index not in range(len(self.layers)) or context.visual is None:
            return x_TD
        keeper = None if context.cache is None else Keeper(context.cache, layer)
        stored = None if keeper is None else keeper.stored
        seen = stored.seen if stored else SeenBefore.nothing(len(context.visual.documents))
        sight = context.visual.sight(self.settings.sees, seen, stored.made if stored else 0)
        out: Tensor = self.run(self.layers[index], x_TD, context.visual.states_VD, sight, keeper)
        return out

    def keys_values(self, states_VD: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
        blocks = {self.first + number * self.every: cast(GatedBlock, one) for number, one in enumerate(self.layers)}
        states_VD = states_VD.to(next(self.parameters()).dtype)
        return {layer: block.attention.keys_values(states_VD) for layer, block in blocks.items()}


class Keeper:
    """Keeps keys and values of the images that the documents of a cache see, for one block."""

    def __init__(self, cache: CachedDocuments, layer: int):
        self.cache, self.layer = cache, layer
        self.stored = cache.images_of(layer)

    def extend(self, k_SGN: Tensor, v_SGN: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
        """All keys and values that a pass can see: what was kept before, then those of its images, given here.

        What its documents go on seeing is kept.
        """
        if self.stored is not None:
            if sight.kept_rows_S is None:
                return self.stored.k_SGN, self.stored.v_SGN
            k_SGN, v_SGN = torch.cat([self.stored.k_SGN, k_SGN]), torch.cat([self.stored.v_SGN, v_SGN])
        rows = slice(0, 0) if sight.kept_rows_S is None else sight.kept_rows_S
        self.cache.keep_images(self.layer, SeenImages(k_SGN.detach()[rows], v_SGN.detach()[rows], sight.kept))
        return k_SGN, v_SGN


class GatedBlock(nn.Module):
    """Attention to the images that a token sees, then a gated MLP; both branches are multiplied by tanh of a gate."""

    def __init__(self, settings: CrossAttentionConfig, language: LanguageConfig, visual_width: int):
        """visual_width: of a visual token."""
        super().__init__()
        settings, width = settings.sized(language), language.width
        assert settings.mlp_width is not None and settings.norm_eps is not None
        self.text_mlp, self.gate_init = settings.text_mlp, settings.gate_init
        channels = width if settings.gate == "vector" else 1
        self.attention_norm = norm_of(settings.norm, width, settings.norm_eps)
        self.attention = ImageAttention(settings, language, visual_width)
        self.attention_gate = nn.Parameter(torch.empty(channels))
        self.mlp_norm = norm_of(settings.norm, width, settings.norm_eps)
        self.mlp: nn.Module = SwiGLU(width, settings.mlp_width)
        if settings.mlp == "gelu":
            self.mlp = MLP(width, settings.mlp_width, width, activation=F.gelu, bias=False)
        self.mlp_gate = nn.Parameter(torch.empty(channels))

    def forward(self, x_TD: Tensor, states_VD: Tensor, sight: Sight, keeper: Keeper | None = None) -> Tensor:
        """Hidden states of all tokens, T,D. states_VD: visual tokens of the images of the pass.

        Where no token sees an image the weights still take part: in training every rank touches the same ones.
        """
        rows_T = sight.rows_T
        seeing_TD = x_TD if rows_T is None else x_TD.index_select(0, rows_T)
        attended_TD = self.attention(self.attention_norm(seeing_TD), states_VD.to(x_TD.dtype), sight, keeper)
        seeing_TD = seeing_TD + self.attention_gate.tanh() * attended_TD
        if not self.text_mlp:
            seeing_TD = self._mlp(seeing_TD)
        x_TD = seeing_TD if rows_T is None else x_TD.index_copy(0, rows_T, seeing_TD)
        return self._mlp(x_TD) if self.text_mlp else x_TD

    def _mlp(self, x_TD: Tensor) -> Tensor:
        out: Tensor = x_TD + self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x_TD))
        return out


class ImageAttention(nn.Module):
    """Attention from tokens to visual tokens: no mask, no padding and no rotary positions."""

    def __init__(self, settings: CrossAttentionConfig, language: LanguageConfig, visual_width: int):
        super().__init__()
        assert settings.heads and settings.kv_heads and settings.head_width and settings.norm_eps is not None
        self.head_width = settings.head_width
        inner, kv_inner = settings.heads * self.head_width, settings.kv_heads * self.head_width
        self.query = nn.Linear(language.width, inner, bias=False)
        self.key = nn.Linear(visual_width, kv_inner, bias=False)
        self.value = nn.Linear(visual_width, kv_inner, bias=False)
        self.output = nn.Linear(inner, language.width, bias=False)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if settings.qk_norm:
            self.query_norm, self.key_norm = (RMSNorm(self.head_width, settings.norm_eps) for _ in range(2))

    def forward(self, x_TD: Tensor, states_VD: Tensor, sight: Sight, keeper: Keeper | None) -> Tensor:
        """Attention output of the tokens that see an image, which `x_TD` holds: T,D."""
        k_SGN, v_SGN = self.keys_values(states_VD)
        if keeper is not None:
            k_SGN, v_SGN = keeper.extend(k_SGN, v_SGN, sight)
        if sight.key_rows_S is not None:
            k_SGN, v_SGN = k_SGN.index_select(0, sight.key_rows_S), v_SGN.index_select(0, sight.key_rows_S)
        q_THN = self.query_norm(self.query(x_TD).unflatten(-1, (-1, self.head_width)))
        out: Tensor = self.output(attention(q_THN, k_SGN, v_SGN, sight.queries, sight.keys).flatten(1))
        return out

    def keys_values(self, states_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, normed, and values of visual tokens: S,G,N."""
        k_SGN = self.key_norm(self.key(states_VD).unflatten(-1, (-1, self.head_width)))
        return k_SGN, self.value(states_VD).unflatten(-1, (-1, self.head_width))


FUSIONS: dict[str, type[Fusion]] = {"autoregressive": Autoregressive, "cross_attention": CrossAttention}
"""The class of each kind of fusion."""


def build_fusion(config: VLMConfig) -> Fusion:
    """The fusion of a model with these settings."""
    kind = config.fusion.kind if isinstance(config.fusion, CrossAttentionConfig) else config.fusion
    return FUSIONS[kind](config)
