"""Perceiver resamplers: latents that attend to the patches of an image (Idefics2's, Idefics1's and between)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.connectors.connector import Connector, interleave
from lorgnette.model.layers import MLP, SwiGLU, norm_of
from lorgnette.model.ops.attention import attention


class Perceiver(Connector):
    """Projection, then a perceiver resampler: `latents` visual tokens per image (§3.2, Tables 4, 12, 13).

    The projection is an MLP, one linear layer, or, for a perceiver as wide as the vision encoder, none.
    """

    def __init__(self, config: PerceiverConfig, vision_width: int, width: int):
        width = config.token_width(vision_width, width)
        super().__init__(config, width)
        self.projects = config.width_of == "decoder"
        self.projection = projection_of(config, vision_width, width)
        self.latents = nn.Parameter(torch.empty(config.latents, width))
        self.layers = nn.ModuleList(PerceiverLayer(config, width) for _ in range(config.depth))
        self.norm = norm_of(config.norm, width, config.norm_eps)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        images = self.states(grids)
        context_PD = self.run(self.projection, patches_PD)
        visual_VD = self.latents.repeat(len(images), 1)
        for layer in self.layers:
            visual_VD = self.run(layer, visual_VD, context_PD, images)
        out: Tensor = self.norm(visual_VD)
        return out

    def blocks(self) -> Iterable[nn.Module]:
        return (self.projection, *self.layers) if self.projects else self.layers


def projection_of(config: PerceiverConfig, vision_width: int, width: int) -> nn.Module:
    """Projection between the vision encoder and the perceiver (Table 13)."""
    if config.width_of == "vision":
        return nn.Identity()
    if config.projection_width is None:
        return nn.Linear(vision_width, width, bias=False)
    return SwiGLU(vision_width, config.projection_width, width)


class PerceiverLayer(nn.Module):
    """Latents of an image attend to its patches and to each other, then each goes through an MLP."""

    def __init__(self, config: PerceiverConfig, width: int):
        super().__init__()
        self.latent_norm = norm_of(config.norm, width, config.norm_eps)
        self.context_norm = norm_of(config.norm, width, config.norm_eps)
        self.attention = PerceiverAttention(config, width)
        self.mlp_norm = norm_of(config.norm, width, config.norm_eps)
        hidden = config.mlp_ratio * width
        self.mlp: nn.Module = SwiGLU(width, hidden)
        if config.mlp != "swiglu":
            activation = F.relu if config.mlp == "relu" else F.gelu
            self.mlp = MLP(width, hidden, width, activation=activation, bias=False)

    def forward(self, visual_VD: Tensor, context_PD: Tensor, images: SequenceLengths) -> Tensor:
        visual_VD = visual_VD + self.attention(self.latent_norm(visual_VD), self.context_norm(context_PD), images)
        out: Tensor = visual_VD + self.mlp(self.mlp_norm(visual_VD))
        return out


class PerceiverAttention(nn.Module):
    def __init__(self, config: PerceiverConfig, width: int):
        super().__init__()
        self.latents, self.head_width = config.latents, config.head_width
        inner, kv_inner = config.heads * config.head_width, config.kv_heads * config.head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, kv_inner, bias=False)
        self.value = nn.Linear(width, kv_inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.query_norm, self.key_norm = (
            norm_of(config.norm, config.head_width, config.norm_eps) if config.qk_norm else nn.Identity()
            for _ in range(2)
        )

    def forward(self, visual_VD: Tensor, context_PD: Tensor, images: SequenceLengths) -> Tensor:
        latents = SequenceLengths((self.latents,) * len(images))
        q_VHN = self.query_norm(self.query(visual_VD).unflatten(-1, (-1, self.head_width)))
        # keys and values are narrow where the context is wide: project first, then join
        k_SGN, v_SGN = (
            interleave(project(context_PD), images, project(visual_VD), latents).unflatten(-1, (-1, self.head_width))
            for project in (self.key, self.value)
        )
        seen = SequenceLengths(tuple(length + self.latents for length in images.lengths))
        out: Tensor = self.output(attention(q_VHN, self.key_norm(k_SGN), v_SGN, latents, seen).flatten(1))
        return out
