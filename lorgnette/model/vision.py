"""Vision encoders: patches of images to hidden states.

To add one, write a `VisionEncoder` here, its settings in `configs/vision_config.py`, its row in `ENCODERS`, and its
weight map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.configs.vision_config import EncoderPlugin, EncoderSettings, VisionConfig
from lorgnette.model.layers import Stack
from lorgnette.model.ops.attention import attention
from lorgnette.model.ops.gelu_tanh import gelu_tanh
from lorgnette.model.ops.position_tables import interpolated_positions
from lorgnette.model.ops.tiling import in_images, in_rows

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


class VisionEncoder(Stack):
    """Base class of vision encoders. A subclass maps patches to states, as many per image as its settings say."""

    def __init__(self, config: EncoderSettings):
        super().__init__()
        self.config = config

    def forward(self, patches_PC: Tensor, positions_P: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """States of all images end to end: P,D, with P as of `states`.

        patches_PC: uint8 pixels of the patches of all images, end to end. positions_P: what the encoder's position rule
        says of each. grids: rows and columns of each image. Patches of an image see each other and nothing else.
        """
        raise TypeError(f"{type(self).__name__} has no forward")

    def states(self, grids: tuple[Grid, ...]) -> SequenceLengths:
        """States of each image."""
        return SequenceLengths(tuple(self.config.states(rows, columns) for rows, columns in grids))

    def normalise(self, patches_PC: Tensor, like: Tensor) -> Tensor:
        """Pixels 0-255 to what the weights were trained on: each channel minus its mean, over its deviation."""
        mean, std = (
            torch.tensor(values, device=like.device).repeat_interleave(self.config.patch**2)
            for values in (self.config.mean, self.config.std)
        )
        return torch.addcmul(-mean / std, patches_PC, 1 / (255 * std)).to(like.dtype)


class ViT(VisionEncoder):
    """A vision transformer on patches of images of any shape, as SigLIP in Idefics2 (paper §3.2, Figure 2)."""

    def __init__(self, config: VisionConfig):
        super().__init__(config)
        self.rule, self.class_token = config.position_rule, config.class_token
        self.patch_embedding = nn.Linear(config.patch_width, config.width, bias=config.patch_bias)
        # nn.Embedding's own normal_ would import torch._dynamo on the meta device, which takes seconds
        table = torch.empty(config.grid**2, config.width).uniform_(-1, 1)
        self.position_embedding = nn.Embedding(config.grid**2, config.width, _weight=table)
        if config.class_token != "none":
            self.class_embedding = nn.Parameter(torch.empty(config.width))
            self.class_position = nn.Parameter(torch.empty(1, config.width))
        self.pre_norm = nn.LayerNorm(config.width, config.norm_eps) if config.norm_before else nn.Identity()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layer_count))
        self.norm = nn.LayerNorm(config.width, config.norm_eps) if config.norm_after else nn.Identity()

    def blocks(self) -> Iterable[nn.Module]:
        return self.layers

    def forward(self, patches_PC: Tensor, positions_P: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        pixels_PC = self.normalise(patches_PC, self.patch_embedding.weight)
        x_PD = self.patch_embedding(pixels_PC) + self.positions(positions_P, grids)
        images = SequenceLengths(tuple(rows * columns for rows, columns in grids))
        if self.class_token != "none":
            x_PD, images = self.with_class_tokens(x_PD, images)
        x_PD = self.pre_norm(x_PD)
        for layer in self.layers:
            x_PD = self.run(layer, x_PD, images)
        out: Tensor = self.norm(x_PD)
        return without_class_tokens(out, images) if self.class_token == "dropped" else out

    def positions(self, positions_P: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """The position of each patch (P,D), by `position_rule`; `positions_P` counts for `bucket` alone."""
        if self.rule == "bucket":
            found: Tensor = self.position_embedding(positions_P)
            return found
        return interpolated_positions(self.position_embedding.weight, grids, self.rule)

    def with_class_tokens(self, x_PD: Tensor, images: SequenceLengths) -> tuple[Tensor, SequenceLengths]:
        """A row before the patches of each image, and the rows of each image: one more."""
        class_1D = self.class_embedding + self.class_position
        pieces = [piece for patches in x_PD.split(list(images.lengths)) for piece in (class_1D, patches)]
        rows = torch.cat(pieces if len(images) else [x_PD, class_1D[:0]])
        return rows, SequenceLengths(tuple(length + 1 for length in images.lengths))


def without_class_tokens(x_PD: Tensor, images: SequenceLengths) -> Tensor:
    """The rows of all images but the first of each."""
    return torch.cat([rows[1:] for rows in x_PD.split(list(images.lengths))]) if len(images) else x_PD


class VisionLayer(nn.Module):
    """Attention and MLP, each before or behind its norm."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.attention = VisionAttention(config)
        self.mlp_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp_width, self.norm_first = config.mlp_width, config.block_norm == "before"
        self.mlp = VisionMLP(config)
        self.layer_scale = config.layer_scale
        if config.layer_scale:
            self.attention_scale, self.mlp_scale = (nn.Parameter(torch.empty(config.width)) for _ in range(2))

    def forward(self, x_PD: Tensor, images: SequenceLengths) -> Tensor:
        return in_images(self._images, x_PD, images, self.mlp_width)

    def _images(self, x_PD: Tensor, images: SequenceLengths) -> Tensor:
        if self.norm_first:
            attended_PD = self.attention(self.attention_norm(x_PD), images)
        else:
            attended_PD = self.attention_norm(self.attention(x_PD, images))
        x_PD = x_PD + (attended_PD * self.attention_scale if self.layer_scale else attended_PD)
        mixed_PD = self.mlp(self.mlp_norm(x_PD)) if self.norm_first else self.mlp_norm(self.mlp(x_PD))
        out: Tensor = x_PD + (mixed_PD * self.mlp_scale if self.layer_scale else mixed_PD)
        return out


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.width, config.width, bias=bias) for bias in (True, config.key_bias, True, True)
        )

    def forward(self, x_PD: Tensor, images: SequenceLengths) -> Tensor:
        q_PHN, k_PHN, v_PHN = (
            project(x_PD).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        out: Tensor = self.output(attention(q_PHN, k_PHN, v_PHN, images, images).flatten(1))
        return out


class VisionMLP(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.mlp_width, self.activation = config.mlp_width, config.activation

    def forward(self, x_PD: Tensor) -> Tensor:
        return in_rows(self._rows, x_PD, self.mlp_width)

    def _rows(self, x_PD: Tensor) -> Tensor:
        out: Tensor = self.down(ACTIVATIONS[self.activation](self.up(x_PD)))
        return out


ENCODERS: dict[type[EncoderSettings], type[VisionEncoder]] = {VisionConfig: ViT}
"""The class of each kind of settings."""


def build_encoder(config: EncoderSettings) -> VisionEncoder:
    """The vision encoder of these settings. Raises: SettingsError for a plug-in that builds something else."""
    if isinstance(config, EncoderPlugin):
        made = config.build()
        if not isinstance(made, VisionEncoder):
            raise SettingsError(
                f"vision encoder {config.kind}: builds a {type(made).__name__}, which is no VisionEncoder"
            )
        return made
    return ENCODERS[type(config)](config)
