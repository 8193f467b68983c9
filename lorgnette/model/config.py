"""Settings of a vision-language model: the kind and the sizes of each part. `presets.py` lists known ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import pydantic

from lorgnette import plugins
from lorgnette.model.configs import presets
from lorgnette.model.configs.fusion_config import CrossAttentionConfig, FusionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import Count, EncoderConfig, VisionConfig
from lorgnette.model.configs.vision_config import EncoderPlugin as EncoderPlugin
from lorgnette.model.configs.vision_config import EncoderSettings as EncoderSettings
from lorgnette.settings import Settings

Mode = Literal["frozen", "lora", "dora", "full"]
"""Training mode of a part of the model."""


class ConnectorSettings(Settings):
    """Settings common to all kinds of connectors."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        """Visual tokens that an image of rows x columns patches becomes; of arrays, an array.

        Rendering, packing and the plan of data count with it. Raises: ValueError for a shape that the kind cannot take.
        """
        raise TypeError(f"{type(self).__name__} does not say how many visual tokens an image becomes")

    @property
    def multiple(self) -> int:
        """Both sides of an image must be multiples of so many patches."""
        return 1

    @property
    def takes_class_token(self) -> bool:
        """Return whether an image may have rows that belong to no place in it."""
        return False

    @property
    def layer_count(self) -> int:
        """Layers: a checkpoint is refused whose settings ask for more of them than it has tensors."""
        return 0

    @property
    def about(self) -> str:
        """The kind and its sizes, for people."""
        return str(getattr(self, "kind", "connector")).replace("_", " ")


class LinearConfig(ConnectorSettings):
    """One linear layer without bias: every patch becomes a visual token (paper, Table 3)."""

    kind: Literal["linear"] = "linear"

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return rows * columns


class PixelShuffleConfig(ConnectorSettings):
    """Squares of side x side patches joined to one visual token, then a linear layer without bias (Idefics3)."""

    kind: Literal["pixel_shuffle"] = "pixel_shuffle"
    side: pydantic.PositiveInt = 2
    """Patches along a side of a square; Idefics3's `scale_factor`."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        if np.any(rows % self.side) or np.any(columns % self.side):
            raise ValueError(
                f"pixel shuffle joins squares of {self.side} x {self.side} patches, which do not fill an image of"
                f" {rows} x {columns} patches; set images.multiple to {self.side}"
            )
        return rows // self.side * (columns // self.side)

    @property
    def multiple(self) -> int:
        return self.side

    @property
    def about(self) -> str:
        return f"pixel shuffle: {self.side} x {self.side} patches a visual token"


class PerceiverConfig(ConnectorSettings):
    """SwiGLU modality projection, then a perceiver resampler: an image becomes `latents` visual tokens (paper §3.2)."""

    kind: Literal["perceiver"] = "perceiver"
    projection_width: pydantic.PositiveInt = 14336
    """Hidden width of the SwiGLU modality projection (Table 13)."""
    latents: pydantic.PositiveInt = 64
    """Visual tokens per image (Table 4)."""
    depth: pydantic.PositiveInt = 3
    """Perceiver layers (Table 12)."""
    heads: pydantic.PositiveInt = 16
    head_width: pydantic.PositiveInt = 96
    kv_heads: pydantic.PositiveInt = 4
    mlp_ratio: pydantic.PositiveInt = 4
    norm_eps: float = pydantic.Field(default=1e-6, ge=0)

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> PerceiverConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} perceiver heads cannot share {self.kv_heads} key-value heads evenly")
        return self

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return 0 * rows * columns + self.latents

    @property
    def takes_class_token(self) -> bool:
        return True

    @property
    def layer_count(self) -> int:
        return self.depth

    @property
    def about(self) -> str:
        return f"perceiver: {self.depth} layers, {self.latents} latents"


class ConnectorPlugin(ConnectorSettings):
    """Base class of settings of connectors from other packages (docs/plugins.md). `kind` is the name that was given."""

    kind: str

    def build(self, vision_width: int, width: int) -> Any:
        """The connector: a `lorgnette.model.connectors.Connector` from the vision encoder's width to the decoder's."""
        raise TypeError(f"{type(self).__name__} does not build a connector")


def _connector_kind(given: Any) -> str:
    """Kind of a connector's settings; a perceiver where they do not say."""
    return str(given.get("kind", "perceiver") if isinstance(given, dict) else getattr(given, "kind", ""))


ConnectorConfig = Annotated[
    Annotated[PerceiverConfig, pydantic.Tag("perceiver")]
    | Annotated[LinearConfig, pydantic.Tag("linear")]
    | Annotated[PixelShuffleConfig, pydantic.Tag("pixel_shuffle")],
    pydantic.Discriminator(_connector_kind),
    pydantic.WrapValidator(
        plugins.settings_of("connectors", ConnectorPlugin, (PerceiverConfig, LinearConfig, PixelShuffleConfig))
    ),
    pydantic.SerializeAsAny(),
]
"""Settings of a connector, by `kind`; one that is none of these names a plug-in."""


def idefics2_connector(language: LanguageConfig) -> PerceiverConfig:
    """Connector for a decoder where none is given: Idefics2's, whose projection is as wide as the decoder's MLP."""
    return PerceiverConfig(projection_width=language.mlp_width)


def parse_connector(values: Mapping[str, Any]) -> ConnectorSettings:
    """Settings of a connector from plain values. Raises: pydantic.ValidationError, a ValueError."""
    found: ConnectorSettings = pydantic.TypeAdapter(ConnectorConfig).validate_python(values)
    return found


class OneSlot(ConnectorSettings):
    """One slot in the text for each image, or crop of one: what blocks of cross-attention want."""

    kind: Literal["one_slot"] = "one_slot"
    connector: ConnectorConfig
    """Connector that makes the visual tokens, of which none is in the sequence."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return 0 * self.connector.visual_tokens(rows, columns) + 1

    @property
    def multiple(self) -> int:
        return self.connector.multiple


def parse_slots(values: Mapping[str, Any]) -> ConnectorSettings:
    """Settings by which an image has its slots in the text, from plain values. Raises: as `parse_connector`."""
    return OneSlot.parse(values) if values.get("kind") == "one_slot" else parse_connector(values)


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
    def _parts_fit(self) -> Self:
        if isinstance(self.fusion, CrossAttentionConfig) and "language" in self.model_fields_set:  # it may come later
            self.fusion.fitted(self.language)
        if self.vision.class_tokens and not self.connector.takes_class_token:
            raise ValueError(
                f"connector {self.connector.kind} makes visual tokens of patches, and a class token is none's; set"
                " vision.class_token to dropped"
            )
        return self

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
