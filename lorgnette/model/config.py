"""Settings of a vision-language model: the kind and the sizes of each part. `presets.py` lists known ones."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic

from lorgnette import plugins
from lorgnette.model.configs import presets
from lorgnette.model.configs.connector_config import ConnectorConfig, OneSlot, PerceiverConfig
from lorgnette.model.configs.connector_settings import ConnectorPlugin as ConnectorPlugin
from lorgnette.model.configs.connector_settings import ConnectorSettings, Count
from lorgnette.model.configs.fusion_config import CrossAttentionConfig, FusionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.settings import Settings

Mode = Literal["frozen", "lora", "dora", "full"]
"""Training mode of a part of the model."""


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

    position_rule: ClassVar[Literal["bucket"]] = "bucket"
    """Rule by which patches of an image find their positions. `bucket`: patch i of n along a side has row or column
    floor(i * grid / n) of the table (Idefics2)."""

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
    """A vision transformer on images of any shape. Defaults are SigLIP-SO400M as Idefics2 uses it."""

    kind: Literal["vit"] = "vit"
    layers: pydantic.PositiveInt = 27
    heads: pydantic.PositiveInt = 16
    mlp_width: pydantic.PositiveInt = 4304
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu_tanh"
    norm_eps: float = pydantic.Field(default=1e-6, ge=0)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        return presets.expand(values, presets.VISION_PRESETS)

    @property
    def layer_count(self) -> int:
        return self.layers

    @property
    def about(self) -> str:
        return f"ViT: {self.layers} layers, width {self.width}, patches of {self.patch} x {self.patch} pixels"

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> VisionConfig:
        if self.width % self.heads:
            raise ValueError(f"vision width {self.width} is not a multiple of its {self.heads} heads")
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


class VLMConfig(Settings):
    """The whole model: vision encoder, connector, decoder, and how they are joined."""

    vision: EncoderConfig = VisionConfig()
    connector: ConnectorConfig = PerceiverConfig()
    language: LanguageConfig = LanguageConfig()
    fusion: FusionConfig = "autoregressive"
    extra_vocabulary: pydantic.NonNegativeInt = 3
    """Rows added after the pre-trained table: fake token around image, image, end of utterance. Always trainable."""
    image_token: pydantic.NonNegativeInt = 32001
    """Id of the token that a visual token takes the place of."""
    isolate_documents: bool = True
    """Packed documents see only themselves, positions restarting. False: as the original code, across documents."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        return presets.expand_model(values)

    @pydantic.model_validator(mode="after")
    def _fusion_fits(self) -> Self:
        if isinstance(self.fusion, CrossAttentionConfig) and "language" in self.model_fields_set:  # it may come later
            self.fusion.fitted(self.language)
        return self

    @pydantic.model_validator(mode="after")
    def _tokens_fit(self) -> Self:
        if self.fusion == "autoregressive" and {"vision", "language"} <= self.model_fields_set:  # they may come later
            self.check_token_width()
        return self

    def check_token_width(self) -> None:
        """Raises: ValueError for visual tokens that are to stand in the sequence and are not as wide as it."""
        if self.visual_width != self.language.width:
            raise ValueError(
                f"connector: its visual tokens are {self.visual_width} wide, as the vision encoder, and cannot stand in"
                f" a sequence of width {self.language.width}; set connector.width_of to decoder, or fusion to"
                " cross_attention"
            )

    @property
    def visual_width(self) -> int:
        """Width of a visual token."""
        return self.connector.token_width(self.vision.width, self.language.width)

    @property
    def slots(self) -> ConnectorSettings:
        """Settings that say how many slots an image has in the text: one for each visual token in the sequence."""
        return OneSlot(connector=self.connector) if isinstance(self.fusion, CrossAttentionConfig) else self.connector

    @property
    def vocabulary(self) -> int:
        """All rows of the embedding: pre-trained and extra."""
        return self.language.vocabulary + self.extra_vocabulary

    @property
    def layer_count(self) -> int:
        """Layers of all parts."""
        layers = self.language.layers
        blocks = self.fusion.blocks(layers) if isinstance(self.fusion, CrossAttentionConfig) else 0
        return self.vision.layer_count + self.connector.layer_count + layers + blocks
