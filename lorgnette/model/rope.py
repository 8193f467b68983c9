"""Rotary positions (RoPE): how fast each pair of a head's elements turns, and the turning."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lorgnette.errors import DataError
from lorgnette.model.configs.language_config import LanguageConfig


def rotation(config: LanguageConfig, positions_T: Tensor, longest: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's rotation (T,1,N each, to be shared by all heads and layers), as `rotate` wants.

    longest: an upper bound on the positions, known to the host.
    Raises: DataError where `dynamic` scaling, or longrope's long factors, would begin: they would turn new keys by
    other angles than cached ones.
    """
    kind = (config.rope_scaling or {}).get("rope_type", "default")
    if kind in ("dynamic", "longrope") and longest > config.context_length:
        raise DataError(f"a document of {longest} tokens exceeds the {config.context_length} positions of this model")
    pairs = torch.arange(0, config.head_width, 2, dtype=torch.float32, device=positions_T.device)
    plain = config.rope_theta ** -(pairs / config.head_width)
    frequencies, magnitude = SCALINGS[str(kind)](plain, config)
    angles = (positions_T[:, None] * frequencies)[:, None]
    cos, sin = (angles.cos() * magnitude).to(dtype), (angles.sin() * magnitude).to(dtype)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x_THN: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of elements (i, i + N/2) of each head."""
    return x_THN * cos + x_THN.roll(x_THN.shape[-1] // 2, -1) * sin


def _default(frequencies: Tensor, config: LanguageConfig) -> tuple[Tensor, float]:
    return frequencies, 1.0


def _linear(frequencies: Tensor, config: LanguageConfig) -> tuple[Tensor, float]:
    return frequencies / _setting(config, "factor"), 1.0


def _llama3(frequencies: Tensor, config: LanguageConfig) -> tuple[Tensor, float]:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    low, high = _setting(config, "low_freq_factor"), _setting(config, "high_freq_factor")
    turns = _setting(config, "original_max_position_embeddings") * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / _setting(config, "factor"), 1.0


def _yarn(frequencies: Tensor, config: LanguageConfig) -> tuple[Tensor, float]:
    """YaRN (Peng et al. 2023): as llama3, but blended along the index of the pair, and scores sharpened."""
    factor, original = _setting(config, "factor"), _setting(config, "original_max_position_embeddings")
    fast, slow = _setting(config, "beta_fast", 32.0), _setting(config, "beta_slow", 1.0)

    def pair_that_turns(times: float) -> float:
        return config.head_width * math.log(original / (times * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    first, last = pair_that_turns(fast), pair_that_turns(slow)
    if (config.rope_scaling or {}).get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.head_width - 1)
    width = 0.001 if first == last else last - first
    ramp = torch.arange(len(frequencies), dtype=torch.float32, device=frequencies.device) - first
    keep = 1 - (ramp / width).clamp(0, 1)
    return keep * frequencies + (1 - keep) * frequencies / factor, _yarn_magnitude(config, factor)


def _yarn_magnitude(config: LanguageConfig, factor: float) -> float:
    """Scale of cosine and sine: given, or from the factor and its two weights (DeepSeek-V2)."""
    given = (config.rope_scaling or {}).get("attention_factor")
    if given is not None:
        return float(given)  # type: ignore[arg-type]  # the settings have checked that it is a number
    weight, shared = _setting(config, "mscale"), _setting(config, "mscale_all_dim")
    if weight and shared:
        return _magnitude(factor, weight) / _magnitude(factor, shared)
    return _magnitude(factor, 1.0)


def _magnitude(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(frequencies: Tensor, config: LanguageConfig) -> tuple[Tensor, float]:
    """LongRoPE (Ding et al. 2024) for documents of the original length: a factor for each pair."""
    original = _setting(config, "original_max_position_embeddings")
    factor = _setting(config, "factor", config.max_positions / original)
    plain = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short = torch.tensor((config.rope_scaling or {})["short_factor"], device=frequencies.device)
    return frequencies / short, _setting(config, "attention_factor", plain)


SCALINGS: dict[str, Callable[[Tensor, LanguageConfig], tuple[Tensor, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "dynamic": _default,  # as the default as long as no document is longer than `max_positions`
}


def _setting(config: LanguageConfig, name: str, default: float = 0.0) -> float:
    value = (config.rope_scaling or {}).get(name, default)
    return float(value)  # type: ignore[arg-type]  # the settings have checked what must be there, and be a number
