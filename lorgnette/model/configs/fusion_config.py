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

    OpenFlamingo's blocks are `first: every - 1, heads: 8, head_width: 64, qk_norm: false, norm: layer, norm_eps: 1e-5,
    mlp: gelu`, with an `mlp_width` of four times the decoder's width.
    """

    kind: Literal["cross_attention"] = "cross_attention"
    every: pydantic.PositiveInt = 4
    """Decoder layers for each block."""
    first: pydantic.NonNegativeInt = 0
    """Decoder layer that the first block stands before (OpenFlamingo: `every` - 1)."""
    heads: pydantic.PositiveInt | None = None
    """Query heads; None for the decoder's (OpenFlamingo: 8)."""
    kv_heads: pydantic.PositiveInt | None = None
    """Key-value heads; None for the decoder's, or as many as `heads` where those are given. Idefics1 has as many."""
    head_width: pydantic.PositiveInt | None = None
    """Width of a head; None for the decoder's (OpenFlamingo: 64)."""
    qk_norm: bool = True
    """RMS norms of queries and keys over the width of a head."""
    gate: Literal["scalar", "vector"] = "scalar"
    """Both branches are multiplied by the tanh of a learned number, or of one for each of the decoder's channels."""
    gate_init: float = 0.0
    """Gates at first. At 0 the model begins as the bare decoder."""
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    """MLP of a block; `gelu` has no gate (OpenFlamingo, where it is four times as wide as the decoder)."""
    mlp_width: pydantic.PositiveInt | None = None
    """Hidden width of a block's MLP; None for the decoder's."""
    norm: Literal["rms", "layer"] = "rms"
    """Norms before both branches: root mean square, or mean and deviation with a bias (OpenFlamingo)."""
    norm_eps: pydantic.NonNegativeFloat | None = None
    """Added to what norms divide by; None for the decoder's."""
    sees: Sees = "last"
    text_mlp: bool = True
    """Run a block's MLP for tokens that see no image too (Idefics1). If false, they pass the block unchanged, and a
    document without images is computed as by the bare decoder (Mllama)."""

    def blocks(self, layers: int) -> int:
        """Number of blocks in a decoder of so many layers."""
        return layers // self.every

    def kv_width(self, language: LanguageConfig) -> int:
        """Values of the keys of a visual token in one block, and as many of its values."""
        sized = self.sized(language)
        return (sized.kv_heads or 0) * (sized.head_width or 0)

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
        sized = self.sized(language)
        if (sized.heads or 1) % (sized.kv_heads or 1):
            raise ValueError(
                f"fusion: {sized.heads} query heads cannot share {sized.kv_heads} key-value heads evenly; set"
                " fusion.kv_heads to a divisor of them"
            )
        return sized

    def sized(self, language: LanguageConfig) -> Self:
        """As `fitted`, of a block by itself."""
        return self.model_copy(
            update={
                "heads": self.heads or language.heads,
                "kv_heads": self.kv_heads or self.heads or language.kv_heads,
                "head_width": self.head_width or language.head_width,
                "mlp_width": self.mlp_width or language.mlp_width,
                "norm_eps": language.norm_eps if self.norm_eps is None else self.norm_eps,
            }
        )


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
