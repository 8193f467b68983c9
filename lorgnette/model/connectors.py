"""Connectors: hidden states of an image's patches to the visual tokens that the decoder reads.

To add one, write a `Connector` here, its settings in `config.py`, and its row in `CONNECTORS`. One of another package
is a plug-in (docs/plugins.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.config import (
    ConnectorConfig,
    ConnectorPlugin,
    ConnectorSettings,
    LinearConfig,
    PerceiverConfig,
    PixelShuffleConfig,
)
from lorgnette.model.layers import RMSNorm, Stack, SwiGLU
from lorgnette.model.ops.attention import attention


class Connector(Stack):
    """Base class of connectors. A subclass maps an encoder's states to visual tokens, as many as its settings say."""

    class_tokens = 0
    """Rows before the patches of each image that are no patch's: 1 if the vision encoder keeps its class token."""

    def __init__(self, config: ConnectorSettings, width: int):
        """width: of a visual token, which is the decoder's."""
        super().__init__()
        self.config, self.width = config, width

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """Visual tokens of all images end to end: V,D.

        patches_PD: hidden states of the patches of all images end to end, with the encoder's class token before those
        of each image if it is kept. grids: rows and columns of each image.
        Without images the result is empty but depends on the weights: in training every rank touches the same ones.
        """
        raise TypeError(f"{type(self).__name__} has no forward")

    def empty(self) -> Tensor:
        """Visual tokens of no image, of the connector's device and dtype: 0,D."""
        return next(self.parameters()).new_empty(0, self.width)

    def states(self, grids: tuple[Grid, ...]) -> SequenceLengths:
        """Rows of `patches_PD` of each image."""
        return SequenceLengths(tuple(self.class_tokens + rows * columns for rows, columns in grids))

    def visual_tokens(self, grids: tuple[Grid, ...]) -> SequenceLengths:
        """Visual tokens of each image."""
        return SequenceLengths(tuple(self.config.visual_tokens(rows, columns) for rows, columns in grids))


class Linear(Connector):
    """One linear layer: every patch becomes a visual token (paper, Table 3, first row)."""

    def __init__(self, config: LinearConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        visual_VD: Tensor = self.run(self.projection, patches_PD)
        return visual_VD


class PixelShuffle(Connector):
    """Squares of patches joined, then one linear layer (Idefics3, SmolVLM)."""

    def __init__(self, config: PixelShuffleConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.side = config.side
        self.projection = nn.Linear(config.side**2 * vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        order_P = torch.cat([torch.empty(0, dtype=torch.int64), *self._orders(grids)]).to(patches_PD.device)
        squares_VD = patches_PD.index_select(0, order_P).reshape(-1, self.side**2 * patches_PD.shape[-1])
        visual_VD: Tensor = self.run(self.projection, squares_VD)
        return visual_VD

    def _orders(self, grids: tuple[Grid, ...]) -> Iterable[Tensor]:
        """Patches of each image in the order of its squares: within one, row by row."""
        start = 0
        for rows, columns in grids:
            self.config.visual_tokens(rows, columns)  # refuses sides that do not divide
            places = torch.arange(start, start + rows * columns).view(-1, self.side, columns // self.side, self.side)
            yield places.transpose(1, 2).flatten()
            start += rows * columns


class Perceiver(Connector):
    """Modality projection, then a perceiver resampler: `latents` visual tokens per image (§3.2, Tables 4, 12, 13)."""

    def __init__(self, config: PerceiverConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.projection = SwiGLU(vision_width, config.projection_width, width)
        self.latents = nn.Parameter(torch.empty(config.latents, width))
        self.layers = nn.ModuleList(PerceiverLayer(config, width) for _ in range(config.depth))
        self.norm = RMSNorm(width, config.norm_eps)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        images = self.states(grids)
        context_PD = self.run(self.projection, patches_PD)
        visual_VD = self.latents.repeat(len(images), 1)
        for layer in self.layers:
            visual_VD = self.run(layer, visual_VD, context_PD, images)
        out: Tensor = self.norm(visual_VD)
        return out

    def blocks(self) -> Iterable[nn.Module]:
        return (self.projection, *self.layers)


class PerceiverLayer(nn.Module):
    """Latents of an image attend to its patches and to each other, then each goes through an MLP."""

    def __init__(self, config: PerceiverConfig, width: int):
        super().__init__()
        self.latent_norm = RMSNorm(width, config.norm_eps)
        self.context_norm = RMSNorm(width, config.norm_eps)
        self.attention = PerceiverAttention(config, width)
        self.mlp_norm = RMSNorm(width, config.norm_eps)
        self.mlp = SwiGLU(width, config.mlp_ratio * width)

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

    def forward(self, visual_VD: Tensor, context_PD: Tensor, images: SequenceLengths) -> Tensor:
        latents = SequenceLengths((self.latents,) * len(images))
        q_VHN = self.query(visual_VD).unflatten(-1, (-1, self.head_width))
        # keys and values are narrow where the context is wide: project first, then join
        k_SGN, v_SGN = (
            interleave(project(context_PD), images, project(visual_VD), latents).unflatten(-1, (-1, self.head_width))
            for project in (self.key, self.value)
        )
        seen = SequenceLengths(tuple(length + self.latents for length in images.lengths))
        out: Tensor = self.output(attention(q_VHN, k_SGN, v_SGN, latents, seen).flatten(1))
        return out


def interleave(first: Tensor, first_spans: SequenceLengths, second: Tensor, second_spans: SequenceLengths) -> Tensor:
    """Span i of `first` followed by span i of `second`, for each i, end to end."""
    firsts, seconds = first.split(list(first_spans.lengths)), second.split(list(second_spans.lengths))
    pieces = [piece for pair in zip(firsts, seconds, strict=True) for piece in pair]
    return torch.cat(pieces) if pieces else first


CONNECTORS: dict[type[ConnectorSettings], type[Connector]] = {
    PerceiverConfig: Perceiver,
    LinearConfig: Linear,
    PixelShuffleConfig: PixelShuffle,
}
"""The class of each kind of settings."""


def build_connector(config: ConnectorConfig, vision_width: int, width: int, class_tokens: int = 0) -> Connector:
    """The connector of these settings, from the vision encoder's width to the decoder's.

    class_tokens: rows of each image that the vision encoder gives beside those of its patches.
    Raises: SettingsError for a plug-in that builds something else.
    """
    if isinstance(config, ConnectorPlugin):
        made = config.build(vision_width, width)
        if not isinstance(made, Connector):
            raise SettingsError(f"connector {config.kind}: builds a {type(made).__name__}, which is no Connector")
    else:
        made = CONNECTORS[type(config)](config, vision_width, width)  # type: ignore[call-arg]
    made.class_tokens = class_tokens
    return made
