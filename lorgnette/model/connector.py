"""The connector: modality projection, then a perceiver that turns each image into a fixed number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorgnette.model.batch import Spans
from lorgnette.model.config import PerceiverConfig
from lorgnette.model.layers import RMSNorm, Stack, SwiGLU
from lorgnette.model.ops.attention import attention


class Connector(Stack):
    """Hidden states of patches to visual tokens, `latents` of them per image (paper §3.2, Tables 4, 12 and 13)."""

    def __init__(self, config: PerceiverConfig, vision_width: int, width: int):
        super().__init__()
        self.projection = SwiGLU(vision_width, config.projection_width, width)
        self.latents = nn.Parameter(torch.empty(config.latents, width))
        self.layers = nn.ModuleList(PerceiverLayer(config, width) for _ in range(config.depth))
        self.norm = RMSNorm(width, config.norm_eps)

    def forward(self, patches_PD: Tensor, images: Spans) -> Tensor:
        """Returns V,D: the visual tokens of all images end to end."""
        context_PD = self.run(self.projection, patches_PD)
        visual_VD = self.latents.repeat(len(images), 1)
        for layer in self.layers:
            visual_VD = self.run(layer, visual_VD, context_PD, images)
        out: Tensor = self.norm(visual_VD)
        return out


class PerceiverLayer(nn.Module):
    """Latents of an image attend to its patches and to each other, then each goes through an MLP."""

    def __init__(self, config: PerceiverConfig, width: int):
        super().__init__()
        self.latent_norm = RMSNorm(width, config.norm_eps)
        self.context_norm = RMSNorm(width, config.norm_eps)
        self.attention = PerceiverAttention(config, width)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.mlp = SwiGLU(width, config.mlp_ratio * width)

    def forward(self, visual_VD: Tensor, context_PD: Tensor, images: Spans) -> Tensor:
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

    def forward(self, visual_VD: Tensor, context_PD: Tensor, images: Spans) -> Tensor:
        latents = Spans((self.latents,) * len(images))
        q_VHN = self.query(visual_VD).unflatten(-1, (-1, self.head_width))
        # keys and values are narrow where the context is wide: project first, then join
        k_SGN, v_SGN = (
            interleave(project(context_PD), images, project(visual_VD), latents).unflatten(-1, (-1, self.head_width))
            for project in (self.key, self.value)
        )
        seen = Spans(tuple(length + self.latents for length in images.lengths))
        out: Tensor = self.output(attention(q_VHN, k_SGN, v_SGN, latents, seen).flatten(1))
        return out


def interleave(first: Tensor, first_spans: Spans, second: Tensor, second_spans: Spans) -> Tensor:
    """Span i of `first` followed by span i of `second`, for each i, end to end."""
    firsts, seconds = first.split(list(first_spans.lengths)), second.split(list(second_spans.lengths))
    pieces = [piece for pair in zip(firsts, seconds, strict=True) for piece in pair]
    return torch.cat(pieces) if pieces else first
