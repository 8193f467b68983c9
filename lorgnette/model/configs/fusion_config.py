"""Settings of fusions: how visual tokens reach the decoder (paper §2, Table 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pydantic

from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.settings import Settings

Sees = Literal["last", "group", "all"]
"""Images of its own document that a token sees: the last before it; the last and those that stand right beside it, as
crops of one image do (Mllama); or all before it."""


class CrossAttentionConfig(Settings):
    """Gated blocks between the decoder's layers that attend to visual tokens (Flamingo; Idefics1, whose the defaults
    are). The text holds one slot for each image, or each crop of one.
    """

    kind: Literal["cross_attention"] = "cross_attention"
    every: pydantic.PositiveInt = 4
    """Decoder layers for each block."""
    first: pydantic.NonNegativeInt = 0
    """Decoder layer that the first block stands before (OpenFlamingo: `every` - 1)."""
    kv_heads: pydantic.PositiveInt | None = None
    """Key-value heads; None for the decoder's. Idefics1 has as many as query heads."""
    qk_norm: bool = True
    """RMS norms of queries and keys over the width of a head."""
    gate: Literal["scalar", "vector"] = "scalar"
    """Both branches are multiplied by the tanh of a learned number, or of one for each of the decoder's channels."""
    gate_init: float = 0.0
    """Gates at first. At 0 the model begins as the bare decoder."""
    mlp_width: pydantic.PositiveInt | None = None
    """Hidden width of a block's MLP; None for the decoder's."""
    sees: Sees = "last"
    text_mlp: bool = True
    """Run a block's MLP for tokens that see no image too (Idefics1). If false, they pass the block unchanged, and a
    document without images is computed as by the bare decoder (Mllama)."""

    def blocks(self, layers: int) -> int:
        """Number of blocks in a decoder of so many layers."""
        return layers // self.every

    @property
    def about(self) -> str:
        """The kind and its sizes, for people."""
        return f"cross-attention: a gated block for every {self.every} layers, from layer {self.first} on"

    def fitted(self, language: LanguageConfig) -> Self:
        """The settings with the sizes written out that they leave to the decoder.

        Raises: ValueError for blocks that have no place between the decoder's layers, or heads that divide unevenly.
        """
        if language.layers % self.every or self.first >= self.every:
            raise ValueError(
                f"fusion: a block for every {self.every} layers, from layer {self.first} on, does not fit a decoder of"
                f" {language.layers} layers; set fusion.every to a divisor of them and fusion.first below it"
            )
        kv_heads, mlp_width = self.kv_heads or language.kv_heads, self.mlp_width or language.mlp_width
        if language.heads % kv_heads:
            raise ValueError(
                f"fusion: {language.heads} query heads cannot share {kv_heads} key-value heads evenly; set"
                " fusion.kv_heads to a divisor of them"
            )
        return self.model_copy(update={"kv_heads": kv_heads, "mlp_width": mlp_width})


def _known(given: Any) -> Any:
    """Settings of a fusion that may be given by its name: `fusion: cross_attention` leaves each at its default."""
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", given)
    if kind not in ("autoregressive", "cross_attention"):
        raise ValueError(f"kind {kind!r:.60} is unknown; use autoregressive or cross_attention")
    if kind == "cross_attention":
        return {"kind": kind} if given == kind else given
    return kind if given == {"kind": kind} else given


FusionConfig = Annotated[
    Annotated[Literal["autoregressive"], pydantic.Tag("autoregressive")]
    | Annotated[CrossAttentionConfig, pydantic.Tag("cross_attention")],
    pydantic.Discriminator(lambda given: "autoregressive" if given == "autoregressive" else "cross_attention"),
    pydantic.BeforeValidator(_known),
]
"""`autoregressive`, which has no settings, or the settings of cross-attention."""
