"""Settings of a vision-language model: what each part is and how large. Presets of known backbones are at the end."""

from __future__ import annotations

from typing import Literal

import pydantic

from lorgnette.settings import Settings


class VisionConfig(Settings):
    """A vision transformer on images of any shape. Defaults are SigLIP-SO400M as Idefics2 uses it."""

    kind: Literal["vit"] = "vit"
    width: pydantic.PositiveInt = 1152
    layers: pydantic.PositiveInt = 27
    heads: pydantic.PositiveInt = 16
    mlp_width: pydantic.PositiveInt = 4304
    patch: pydantic.PositiveInt = 14
    grid: pydantic.PositiveInt = 70
    """Side of the square table of positions, in patches (980 / 14)."""
    channels: pydantic.PositiveInt = 3
    activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu_tanh"
    norm_eps: float = 1e-6
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Subtracted from each channel (as a fraction of 255), before dividing by `std`."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def patch_width(self) -> int:
        """Values in one flattened patch: the C of `patches_PC`."""
        return self.channels * self.patch * self.patch

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> VisionConfig:
        if self.width % self.heads:
            raise ValueError(f"vision width {self.width} is not a multiple of its {self.heads} heads")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need a value for each of the {self.channels} channels")
        if 0 in self.std:
            raise ValueError("std is zero for a channel, so that its pixels cannot be divided by it")
        return self


class PerceiverConfig(Settings):
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
    norm_eps: float = 1e-6

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> PerceiverConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} perceiver heads cannot share {self.kv_heads} key-value heads evenly")
        return self


RopeValue = bool | float | str | tuple[float, ...]

ROPE_SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": ("original_max_position_embeddings",),
}
"""Known ways to stretch rotary positions, and the numbers that each needs."""
ROPE_OPTIONS = {
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "longrope": ("attention_factor", "factor", "short_factor", "long_factor"),
}
"""What it may have besides."""


class LanguageConfig(Settings):
    """A decoder of the Llama family. Defaults are Mistral-7B-v0.1."""

    kind: Literal["decoder"] = "decoder"
    family: Literal["llama", "mistral", "qwen2", "qwen3"] = "mistral"
    """The transformers class that the weights are exported to and named after."""
    vocabulary: pydantic.PositiveInt = 32000
    """Rows of the pre-trained embedding table, without lorgnette's extra rows."""
    width: pydantic.PositiveInt = 4096
    layers: pydantic.PositiveInt = 32
    heads: pydantic.PositiveInt = 32
    kv_heads: pydantic.PositiveInt = 8
    head_width: pydantic.PositiveInt = 128
    mlp_width: pydantic.PositiveInt = 14336
    norm_eps: float = 1e-5
    rope_theta: pydantic.PositiveFloat = 10000.0
    rope_scaling: dict[str, RopeValue] | None = None
    """As in transformers' `rope_parameters` (`rope_type`: linear, llama3, ...); None for plain rotary embeddings."""
    qk_norm: bool = False
    attention_bias: bool = False
    """Biases on the query, key and value projections (Qwen2.5)."""
    tied_embeddings: bool = False
    sliding_window: pydantic.PositiveInt | None = None
    max_positions: pydantic.PositiveInt = 32768

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> LanguageConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} is odd, but rotary positions turn pairs")
        return self

    @pydantic.model_validator(mode="after")
    def _rope_is_known(self) -> LanguageConfig:
        scaling = self.rope_scaling or {}
        kind = scaling.get("rope_type", "default")
        if kind not in ROPE_SCALINGS:
            raise ValueError(f"rope_type {kind!r} is unknown; use one of {', '.join(ROPE_SCALINGS)}")
        missing = [name for name in ROPE_SCALINGS[str(kind)] if not isinstance(scaling.get(name), float | int)]
        if missing:
            raise ValueError(f"rope_type {kind!r} needs the number {', '.join(missing)} in rope_scaling")
        known = {"rope_type", "original_max_position_embeddings", *ROPE_SCALINGS[str(kind)]}
        unknown = scaling.keys() - known.union(ROPE_OPTIONS.get(str(kind), ()))
        if unknown:
            raise ValueError(f"rope_type {kind!r} of lorgnette knows no {', '.join(sorted(unknown))}")
        self._check_rope_numbers(scaling)
        return self

    def _check_rope_numbers(self, scaling: dict[str, RopeValue]) -> None:
        """Numbers by which the frequencies are divided, or whose logarithm is taken, must be above 0."""
        for name, value in scaling.items():
            lists = name in ("short_factor", "long_factor")
            if lists and not (isinstance(value, tuple) and len(value) == self.head_width // 2):
                raise ValueError(f"rope_scaling's {name} needs a number for each of the {self.head_width // 2} pairs")
            if not lists and name not in ("rope_type", "truncate") and not isinstance(value, float | int):
                raise ValueError(f"rope_scaling's {name} is {value!r:.60}; expected a number")
            numbers = value if isinstance(value, tuple) else (value,)
            positive = lists or name in ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow")
            if positive and any(float(number) <= 0 for number in numbers):
                raise ValueError(f"rope_scaling's {name} must be above 0")
        if scaling.get("rope_type") == "longrope" and "short_factor" not in scaling:
            raise ValueError("rope_type 'longrope' needs short_factor in rope_scaling")
        if scaling.get("rope_type") == "longrope" and scaling["original_max_position_embeddings"] == 1:
            raise ValueError("rope_type 'longrope' needs an original_max_position_embeddings above 1")
        if scaling.get("rope_type") == "yarn" and self.rope_theta == 1:
            raise ValueError("rope_type 'yarn' needs a rope_theta other than 1")

    @property
    def context_length(self) -> int:
        """Tokens of the longest document that the decoder was made for.

        `max_positions` is that of the model before its rotary positions were stretched, or after: files differ, so the
        larger is taken. Where other frequencies would begin in the middle of a document, it ends before.
        """
        scaling = self.rope_scaling or {}
        kind, factor = scaling.get("rope_type", "default"), float(scaling.get("factor", 1.0))  # type: ignore[arg-type]
        original = int(scaling.get("original_max_position_embeddings", self.max_positions))  # type: ignore[arg-type]
        if kind == "longrope":
            return original
        stretched = {"linear": self.max_positions * factor, "yarn": original * factor}.get(str(kind), 0.0)
        return max(self.max_positions, int(stretched))


class VLMConfig(Settings):
    """The whole model: vision encoder, connector, decoder, and how they are joined."""

    vision: VisionConfig = VisionConfig()
    connector: PerceiverConfig = PerceiverConfig()
    language: LanguageConfig = LanguageConfig()
    fusion: Literal["autoregressive"] = "autoregressive"
    extra_vocabulary: pydantic.NonNegativeInt = 3
    """Rows added after the pre-trained table: fake token around image, image, end of utterance. Always trainable."""
    image_token: pydantic.NonNegativeInt = 32001
    """Id of the token that a visual token takes the place of."""
    isolate_documents: bool = True
    """Packed documents see only themselves, positions restarting. False: as the original code, across documents."""

    @property
    def vocabulary(self) -> int:
        """All rows of the embedding: pre-trained and extra."""
        return self.language.vocabulary + self.extra_vocabulary
