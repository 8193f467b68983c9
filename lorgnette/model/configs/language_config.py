"""Settings of a decoder of the Llama family, its rotary positions among them."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from lorgnette.model.configs import presets
from lorgnette.settings import Settings

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
"""Optional numbers of each kind."""


class LanguageConfig(Settings):
    """A decoder of the Llama family. Defaults are Mistral-7B-v0.1."""

    kind: Literal["decoder"] = "decoder"
    family: Literal["llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3_text"] = (
        "mistral"
    )
    """The transformers class that the weights are exported to and named after."""
    vocabulary: pydantic.PositiveInt = 32000
    """Rows of the pre-trained embedding table, without lorgnette's extra rows."""
    width: pydantic.PositiveInt = 4096
    layers: pydantic.PositiveInt = 32
    heads: pydantic.PositiveInt = 32
    kv_heads: pydantic.PositiveInt = 8
    head_width: pydantic.PositiveInt = 128
    mlp_width: pydantic.PositiveInt = 14336
    activation: Literal["silu", "gelu_tanh"] = "silu"
    """Activation of the MLP's gate; `gelu_tanh` is Gemma's."""
    norm_eps: float = pydantic.Field(default=1e-5, ge=0)
    norm_offset: bool = False
    """RMS norms scale by 1 + their weight (Gemma)."""
    scaled_embedding: bool = False
    """Embedded tokens are multiplied by the root of the width (Gemma). Visual tokens are not."""
    post_norms: bool = False
    """Norms after attention and MLP, before each is added, beside those before them (Gemma 2, 3)."""
    query_pre_attn_scalar: pydantic.PositiveInt | None = None
    """Scores of attention are divided by its root (Gemma 2, 3); None for `head_width`, as everywhere else."""
    score_cap: pydantic.PositiveFloat | None = None
    """Scores of attention become cap * tanh(score / cap) before the softmax (Gemma 2)."""
    logit_cap: pydantic.PositiveFloat | None = None
    """The same for the scores of the vocabulary (Gemma 2)."""
    rope_theta: pydantic.PositiveFloat = 10000.0
    local_rope_theta: pydantic.PositiveFloat | None = None
    """Base of rotary positions in layers with a window, where they are never scaled (Gemma 3); None: as elsewhere."""
    rope_scaling: dict[str, RopeValue] | None = None
    """As in transformers' `rope_parameters` (`rope_type`: linear, llama3, ...); None for plain rotary embeddings."""
    no_rope_every: pydantic.PositiveInt | None = None
    """Layers n - 1, 2 n - 1 and so on have no rotary positions (SmolLM3); None for none of them."""
    qk_norm: bool = False
    attention_bias: bool = False
    """Biases on the query, key and value projections (Qwen2.5)."""
    tied_embeddings: bool = False
    sliding_window: pydantic.PositiveInt | None = None
    """Keys that a token sees at most, its own included."""
    global_every: pydantic.PositiveInt | None = None
    """Layers n - 1, 2 n - 1 and so on have no window, and the others do (Gemma 2, 3); None: all have it."""
    max_positions: pydantic.PositiveInt = 32768

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        return presets.expand(values, presets.LANGUAGE)

    @pydantic.model_validator(mode="after")
    def _heads_divide(self) -> LanguageConfig:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} is odd, but rotary positions turn pairs")
        return self

    @pydantic.model_validator(mode="after")
    def _windows_are_there(self) -> LanguageConfig:
        for name in ("global_every", "local_rope_theta"):
            if getattr(self, name) is not None and self.sliding_window is None:
                raise ValueError(f"{name} is for layers with a window; set sliding_window, or leave {name} out")
        if self.global_every == 1:
            raise ValueError("global_every 1 leaves no layer a window; leave out sliding_window and global_every")
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
        if scaling.get("rope_type") == "llama3" and scaling["low_freq_factor"] >= scaling["high_freq_factor"]:  # type: ignore[operator]
            raise ValueError("rope_type 'llama3' needs a high_freq_factor above its low_freq_factor")
        if scaling.get("rope_type") == "yarn" and self.rope_theta == 1:
            raise ValueError("rope_type 'yarn' needs a rope_theta other than 1")

    def window_of(self, layer: int) -> int | None:
        """Keys that a token sees at most in this layer; None for all before it."""
        is_global = self.global_every is not None and (layer + 1) % self.global_every == 0
        return None if is_global else self.sliding_window

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer."""
        return tuple(self.window_of(layer) for layer in range(self.layers))

    @property
    def local(self) -> LanguageConfig:
        """Settings as layers with a window have them: `local_rope_theta` in the place of base and scaling."""
        if self.local_rope_theta is None:
            return self
        return self.model_copy(update={"rope_theta": self.local_rope_theta, "rope_scaling": None})

    @property
    def about(self) -> str:
        """The family and its sizes, for people."""
        heads = f"{self.heads} heads on {self.kv_heads}"
        return f"{self.family}: {self.layers} layers, width {self.width}, {heads}"

    @property
    def context_length(self) -> int:
        """Tokens of the longest document that the decoder was made for.

        `max_positions` is that of the model before its rotary positions were stretched, or after: files differ, so the
        larger is taken; Gemma 3's say the stretched length. Where other frequencies would begin in the middle of a
        document, it ends before.
        """
        scaling = self.rope_scaling or {}
        kind, factor = scaling.get("rope_type", "default"), float(scaling.get("factor", 1.0))  # type: ignore[arg-type]
        original = int(scaling.get("original_max_position_embeddings", self.max_positions))  # type: ignore[arg-type]
        if kind == "longrope":
            return original
        if self.family == "gemma3_text":
            return self.max_positions
        stretched = {"linear": self.max_positions * factor, "yarn": original * factor}.get(str(kind), 0.0)
        return max(self.max_positions, int(stretched))
