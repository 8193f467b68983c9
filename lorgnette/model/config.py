"""Settings of a vision-language model: the kind and the sizes of each part. `presets.py` lists known ones."""

from __future__ import annotations

from typing import Any, Literal, Self

import pydantic

from lorgnette.model.configs import presets
from lorgnette.model.configs.connector_config import ConnectorConfig, IdentityConfig, OneSlot, PerceiverConfig
from lorgnette.model.configs.connector_settings import ConnectorPlugin as ConnectorPlugin
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.model.configs.fusion_config import CrossAttentionConfig, FusionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import EncoderConfig, VisionConfig
from lorgnette.model.configs.vision_config import EncoderPlugin as EncoderPlugin
from lorgnette.model.configs.vision_config import EncoderSettings as EncoderSettings
from lorgnette.settings import Settings

Mode = Literal["frozen", "lora", "dora", "full"]
"""Training mode of a part of the model."""


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
        if isinstance(self.connector, IdentityConfig) and self.connector.class_tokens != self.vision.class_tokens:
            raise ValueError(
                f"connector identity: class_tokens is {self.connector.class_tokens}, but an image has"
                f" {self.vision.class_tokens} states beside its patches'; set it to that"
            )
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
