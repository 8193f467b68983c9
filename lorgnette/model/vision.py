"""Vision encoders: patches of images to hidden states.

To add one, write a `VisionEncoder` here, its settings in `config.py`, its row in `ENCODERS`, and its weight map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.config import EncoderPlugin, EncoderSettings, VisionConfig
from lorgnette.model.layers import Stack
from lorgnette.model.ops.attention import attention
from lorgnette.model.ops.gelu_tanh import gelu_tanh
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
        self.patch_embedding = nn.Linear(config.patch_width, config.width)
        self.position_embedding = nn.Embedding(config.grid**2, config.width)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, config.norm_eps)

    def blocks(self) -> Iterable[nn.Module]:
        return self.layers

    def forward(self, patches_PC: Tensor, positions_P: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        pixels_PC = self.normalise(patches_PC, self.patch_embedding.weight)
        x_PD = self.patch_embedding(pixels_PC) + self.position_embedding(positions_P)
        images = self.states(grids)
        for layer in self.layers:
            x_PD = self.run(layer, x_PD, images)
        out: Tensor = self.norm(x_PD)
        return out


class VisionLayer(nn.Module):
    """Attention and MLP, each behind its norm."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.attention = VisionAttention(config)
        self.mlp_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp_width = config.mlp_width
        self.mlp = VisionMLP(config)

    def forward(self, x_PD: Tensor, images: SequenceLengths) -> Tensor:
        return in_images(self._images, x_PD, images, self.mlp_width)

    def _images(self, x_PD: Tensor, images: SequenceLengths) -> Tensor:
        x_PD = x_PD + self.attention(self.attention_norm(x_PD), images)
        out: Tensor = x_PD + self.mlp(self.mlp_norm(x_PD))
        return out


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.heads
        self.query, self.key, self.value, self.output = (nn.Linear(config.width, config.width) for _ in range(4))

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
