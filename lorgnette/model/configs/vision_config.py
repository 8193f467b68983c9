"""Settings of vision encoders: one vision transformer with the choices of the published ones (paper §3.1, Table 2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from lorgnette import plugins
from lorgnette.model.configs import presets
from lorgnette.model.configs.connector_settings import Count
from lorgnette.settings import Settings

PositionRule = Literal["bucket", "bicubic", "bicubic_antialias", "bilinear_antialias"]
"""Rule by which patches of an image find their positions in a square table. `bucket`: patch i of n along a side has row
or column floor(i * grid / n) of the table (Idefics2). The others resize the table to each image's rows and columns:
`bicubic` as transformers does, `bicubic_antialias` as timm and OpenCLIP, `bilinear_antialias` as SigLIP 2 NaFlex."""


STATES_TAKEN = ("class_token", "norm_after", "skipped_layers", "position_rule")
"""Settings that say which states of a published encoder are taken, and how positions are: a join may choose them."""


class EncoderSettings(Settings):
    """Settings that all kinds of vision encoders have: sizes and pixels. Defaults are SigLIP-SO400M's in Idefics2."""

    width: pydantic.PositiveInt = 1152
    patch: pydantic.PositiveInt = 14
    """Side of a square patch, in pixels."""
    grid: pydantic.PositiveInt = 70
    """Side of the square table of positions, in patches (980 / 14)."""
    channels: pydantic.PositiveInt = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Subtracted from each channel (as a fraction of 255), before dividing by `std`."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def patch_width(self) -> int:
        """Values in one flattened patch: the C of `patches_PC`."""
        return self.channels * self.patch * self.patch

    def states(self, rows: Count, columns: Count) -> Count:
        """Hidden states that an image of rows x columns patches becomes; of arrays, an array.

        One for each patch, row by row, where a kind does not say otherwise: a class token is dropped.
        """
        return rows * columns

    @property
    def class_tokens(self) -> int:
        """States of each image that belong to no patch and come before those that do: 1 for a class token kept."""
        return 0

    @property
    def interpolates(self) -> bool:
        """Return whether positions follow from the rows and columns of an image, whatever the side of the table."""
        return False

    @property
    def layer_count(self) -> int:
        """Layers: a checkpoint is refused whose settings ask for more of them than it has tensors."""
        return 0

    @property
    def about(self) -> str:
        """The kind and its sizes, for people."""
        return str(getattr(self, "kind", "encoder"))

    @pydantic.model_validator(mode="after")
    def _channels_fit(self) -> Self:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need a value for each of the {self.channels} channels")
        if 0 in self.std:
            raise ValueError("std is zero for a channel, so that its pixels cannot be divided by it")
        return self


class VisionConfig(EncoderSettings):
    """A vision transformer on images of any shape. Defaults are SigLIP-SO400M as Idefics2 uses it.

    Its settings give SigLIP, SigLIP 2, CLIP, EVA-02-CLIP and DINOv2 too; `lorgnette presets` has them.
    """

    kind: Literal["vit"] = "vit"
    layers: pydantic.PositiveInt = 27
    skipped_layers: pydantic.NonNegativeInt = 0
    """Layers at the end that are neither held nor run: LLaVA takes the states before CLIP's last layer (1)."""
    heads: pydantic.PositiveInt = 16
    mlp_width: pydantic.PositiveInt = 4304
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu_tanh"
    norm_eps: float = pydantic.Field(default=1e-6, ge=0)
    position_rule: PositionRule = "bucket"
    class_token: Literal["none", "kept", "dropped"] = "none"
    """A learned row before the patches of each image, with a position of its own (CLIP, EVA-02-CLIP, DINOv2). `kept`
    gives its state to the connector with those of the patches, `dropped` runs the layers with it and leaves it out."""
    norm_before: bool = False
    """A LayerNorm before the first layer (CLIP)."""
    norm_after: bool = True
    """A LayerNorm after the last layer. CLIP's norms its pooled state only: false."""
    block_norm: Literal["before", "after"] = "before"
    """A branch f of a layer adds f(norm(x)), or norm(f(x)) (EVA-02-CLIP-E)."""
    layer_scale: bool = False
    """Each branch is multiplied by a learned vector (DINOv2)."""
    key_bias: bool = True
    """A bias of the keys. It moves all scores of a query alike, so that a model without computes the same (EVA)."""
    patch_bias: bool = True
    """A bias of the patch embedding, which CLIP's lacks."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        return presets.expand(values, presets.VISION_PRESETS)

    def states(self, rows: Count, columns: Count) -> Count:
        return rows * columns + self.class_tokens

    @property
    def class_tokens(self) -> int:
        return int(self.class_token == "kept")

    @property
    def interpolates(self) -> bool:
        return self.position_rule != "bucket"

    @property
    def layer_count(self) -> int:
        return self.layers - self.skipped_layers

    @property
    def about(self) -> str:
        return f"ViT: {self.layer_count} layers, width {self.width}, patches of {self.patch} x {self.patch} pixels"

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> VisionConfig:
        if self.width % self.heads:
            raise ValueError(f"vision width {self.width} is not a multiple of its {self.heads} heads")
        if self.skipped_layers >= self.layers:
            raise ValueError(f"skipped_layers {self.skipped_layers} leaves none of {self.layers} layers; lower it")
        return self


class EncoderPlugin(EncoderSettings):
    """Base class of settings of vision encoders from other packages (docs/plugins.md). `kind` is the given name."""

    kind: str

    def build(self) -> Any:
        """The encoder: a `lorgnette.model.vision.VisionEncoder`."""
        raise TypeError(f"{type(self).__name__} does not build a vision encoder")


EncoderConfig = Annotated[
    VisionConfig,  # or an `EncoderPlugin`: what reads more than `EncoderSettings` has must ask for the class
    pydantic.WrapValidator(plugins.settings_of("encoders", EncoderPlugin, (VisionConfig,))),
    pydantic.SerializeAsAny(),
]
"""Settings of a vision encoder, by `kind`."""
