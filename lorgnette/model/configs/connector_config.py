"""Settings of connectors, by kind; each says how many visual tokens an image becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from lorgnette import plugins
from lorgnette.model.configs.connector_settings import ConnectorPlugin, ConnectorSettings, Count
from lorgnette.model.configs.language_config import LanguageConfig


class LinearConfig(ConnectorSettings):
    """One linear layer without bias: every patch becomes a visual token (paper, Table 3)."""

    kind: Literal["linear"] = "linear"

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return rows * columns


class MLPConfig(ConnectorSettings):
    """Two linear layers with biases around a GELU: every patch becomes a visual token (LLaVA-1.5)."""

    kind: Literal["mlp"] = "mlp"
    hidden: pydantic.PositiveInt | None = None
    """Width between the two; None for the decoder's."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return rows * columns


class IdentityConfig(ConnectorSettings):
    """No connector: the states of the vision encoder are the visual tokens, for cross-attention alone (Idefics1 without
    its resampler).
    """

    kind: Literal["identity"] = "identity"
    class_tokens: pydantic.NonNegativeInt = 0
    """States of an image beside those of its patches: 1 for a vision encoder that keeps its class token."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return rows * columns + self.class_tokens

    @property
    def takes_class_token(self) -> bool:
        return True

    def token_width(self, vision_width: int, width: int) -> int:
        return vision_width

    @property
    def about(self) -> str:
        return "none: the vision encoder's states"


class AverageConfig(ConnectorSettings):
    """Means of an image's patches over a grid of side x side, then a linear layer without bias (Gemma 3's pooling)."""

    kind: Literal["average"] = "average"
    side: pydantic.PositiveInt = 8
    """Visual tokens along a side of every image."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return 0 * rows * columns + self.side**2

    @property
    def about(self) -> str:
        return f"average: {self.side} x {self.side} means an image"


class FlatLinearConfig(ConnectorSettings):
    """A matrix that mixes the patches of a square image to fewer, then a linear layer without bias (paper, Table 11).

    The paper says that a linear layer on the flattened states gives a shorter sequence. A dense one would have 220
    billion weights, so it is read as a matrix over patches and one over channels (docs/decisions/0025).
    """

    kind: Literal["flat_linear"] = "flat_linear"
    tokens: pydantic.PositiveInt = 64
    """Visual tokens per image."""
    side: pydantic.PositiveInt = 27
    """Patches along a side of every image: SigLIP's 378 pixels in patches of 14."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        if np.any(rows != self.side) or np.any(columns != self.side):
            raise ValueError(
                f"flat_linear mixes {self.side} x {self.side} patches, which an image of {rows} x {columns} patches has"
                f" not; set images.policy to square and images.longest to {self.side} patches"
            )
        return 0 * rows * columns + self.tokens

    @property
    def only_grid(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def about(self) -> str:
        return f"flat linear: {self.side} x {self.side} patches mixed to {self.tokens} visual tokens"


class MappingNetworkConfig(ConnectorSettings):
    """MAPL's mapping network: learned constants after the patches in a small transformer (paper, Table 11)."""

    kind: Literal["mapping_network"] = "mapping_network"
    constants: pydantic.PositiveInt = 64
    """Learned constants, which become the visual tokens of an image; 32 in MAPL."""
    depth: pydantic.PositiveInt = 4
    width: pydantic.PositiveInt = 256
    heads: pydantic.PositiveInt = 8
    mlp_width: pydantic.PositiveInt = 512
    norm_eps: float = pydantic.Field(default=1e-5, ge=0)

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> MappingNetworkConfig:
        if self.width % self.heads:
            raise ValueError(f"mapping network: width {self.width} is not a multiple of its {self.heads} heads")
        return self

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        return 0 * rows * columns + self.constants

    @property
    def takes_class_token(self) -> bool:
        return True

    @property
    def layer_count(self) -> int:
        return self.depth

    @property
    def about(self) -> str:
        return f"mapping network: {self.depth} layers, {self.constants} constants"


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
    """Modality projection, then a perceiver resampler: an image becomes `latents` visual tokens (paper §3.2).

    Defaults are Idefics2's. Idefics1's is `width_of: vision, norm: layer, norm_eps: 1e-5, qk_norm: true, mlp: relu,
    depth: 6, kv_heads: 16`, OpenFlamingo's the same with `mlp: gelu, heads: 8, kv_heads: 8, head_width: 64` and without
    `qk_norm`; that of the paper's training code has `qk_norm: true`.
    """

    kind: Literal["perceiver"] = "perceiver"
    projection_width: pydantic.PositiveInt | None = 14336
    """Hidden width of the SwiGLU modality projection; None for one linear layer without bias instead (Table 13)."""
    width_of: Literal["decoder", "vision"] = "decoder"
    """Width of latents and layers: the decoder's, or the vision encoder's, without a projection (Idefics1)."""
    latents: pydantic.PositiveInt = 64
    """Visual tokens per image (Table 4)."""
    depth: pydantic.PositiveInt = 3
    """Perceiver layers (Table 12)."""
    heads: pydantic.PositiveInt = 16
    head_width: pydantic.PositiveInt = 96
    kv_heads: pydantic.PositiveInt = 4
    mlp: Literal["swiglu", "relu", "gelu"] = "swiglu"
    """MLP of a layer; `relu` (Idefics1) and `gelu` (OpenFlamingo) have no gate."""
    mlp_ratio: pydantic.PositiveInt = 4
    norm: Literal["rms", "layer"] = "rms"
    """Norms: root mean square, or mean and deviation with a bias (Idefics1)."""
    norm_eps: float = pydantic.Field(default=1e-6, ge=0)
    qk_norm: bool = False
    """Norm each head's queries and keys."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_projection(cls, values: Any) -> Any:
        """At the encoder's width there is no projection, so none need be given."""
        at_vision = isinstance(values, dict) and values.get("width_of") == "vision"
        return {"projection_width": None} | values if at_vision else values

    @pydantic.model_validator(mode="after")
    def _possible(self) -> PerceiverConfig:
        if self.width_of == "vision" and self.projection_width is not None:
            raise ValueError(
                f"projection_width {self.projection_width} has no effect where width_of is vision, since a perceiver of"
                " the vision encoder's width has no projection; leave out either"
            )
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

    def token_width(self, vision_width: int, width: int) -> int:
        return vision_width if self.width_of == "vision" else width

    @property
    def about(self) -> str:
        before = "" if self.projection_width else ", no MLP before it"
        if self.width_of == "vision":
            before = ", of the vision encoder's width"
        return f"perceiver: {self.depth} layers, {self.latents} latents{before}"


def _connector_kind(given: Any) -> str:
    """Kind of a connector's settings; a perceiver where they do not say."""
    return str(given.get("kind", "perceiver") if isinstance(given, dict) else getattr(given, "kind", ""))


BUILT_IN_CONNECTORS = (
    PerceiverConfig,
    LinearConfig,
    MLPConfig,
    PixelShuffleConfig,
    AverageConfig,
    FlatLinearConfig,
    MappingNetworkConfig,
    IdentityConfig,
)
"""Settings of the connectors of this package."""

ConnectorConfig = Annotated[
    Annotated[PerceiverConfig, pydantic.Tag("perceiver")]
    | Annotated[LinearConfig, pydantic.Tag("linear")]
    | Annotated[MLPConfig, pydantic.Tag("mlp")]
    | Annotated[PixelShuffleConfig, pydantic.Tag("pixel_shuffle")]
    | Annotated[AverageConfig, pydantic.Tag("average")]
    | Annotated[FlatLinearConfig, pydantic.Tag("flat_linear")]
    | Annotated[MappingNetworkConfig, pydantic.Tag("mapping_network")]
    | Annotated[IdentityConfig, pydantic.Tag("identity")],
    pydantic.Discriminator(_connector_kind),
    pydantic.WrapValidator(plugins.settings_of("connectors", ConnectorPlugin, BUILT_IN_CONNECTORS)),
    pydantic.BeforeValidator(lambda given: {"kind": given} if isinstance(given, str) else given),
    pydantic.SerializeAsAny(),
]
"""Settings of a connector, by `kind`, or its kind alone; one that is none of these names a plug-in."""


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

    @property
    def only_grid(self) -> tuple[int, int] | None:
        return self.connector.only_grid


def parse_slots(values: Mapping[str, Any]) -> ConnectorSettings:
    """Settings by which an image has its slots in the text, from plain values. Raises: as `parse_connector`."""
    return OneSlot.parse(values) if values.get("kind") == "one_slot" else parse_connector(values)
