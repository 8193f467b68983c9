"""Known backbones as rows of sizes. A new one of a known family is a row here and nothing else."""

from __future__ import annotations

from lorgnette.model.config import LanguageConfig, VisionConfig

VISION: dict[str, VisionConfig] = {
    "siglip-so400m": VisionConfig(),
    "siglip-base-16-224": VisionConfig(width=768, layers=12, heads=12, mlp_width=3072, patch=16, grid=14),
    "siglip-large-16-384": VisionConfig(width=1024, layers=24, heads=16, mlp_width=4096, patch=16, grid=24),
}
"""Vision encoders by name. `siglip-so400m` has Idefics2's 70 x 70 positions, the others their checkpoint's."""

_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _llama(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, **rest: object) -> LanguageConfig:
    sizes = {"width": width, "layers": layers, "heads": heads, "kv_heads": kv_heads, "mlp_width": mlp_width}
    return LanguageConfig(**{"family": "llama", "head_width": width // heads} | sizes | rest)  # type: ignore[arg-type]


def _llama3(width: int, layers: int, mlp_width: int, factor: float, tied: bool) -> LanguageConfig:
    rope: dict[str, object] = {"rope_theta": 500000.0, "rope_scaling": _LLAMA3 | {"factor": factor}}
    return _llama(
        width, layers, 32, 8, mlp_width, vocabulary=128256, max_positions=131072, tied_embeddings=tied, **rope
    )


def _smollm2(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, theta: float) -> LanguageConfig:
    rest: dict[str, object] = {"vocabulary": 49152, "rope_theta": theta, "max_positions": 8192, "tied_embeddings": True}
    return _llama(width, layers, heads, kv_heads, mlp_width, **rest)


def _qwen(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, **rest: object) -> LanguageConfig:
    common: dict[str, object] = {"vocabulary": 151936, "norm_eps": 1e-6, "rope_theta": 1e6, "tied_embeddings": True}
    return _llama(width, layers, heads, kv_heads, mlp_width, **common | rest)


_QWEN25: dict[str, object] = {"family": "qwen2", "attention_bias": True, "max_positions": 32768}
_QWEN3: dict[str, object] = {"family": "qwen3", "qk_norm": True, "head_width": 128, "max_positions": 40960}

LANGUAGE: dict[str, LanguageConfig] = {
    "mistral-7b": LanguageConfig(sliding_window=4096),
    "llama-1-7b": _llama(4096, 32, 32, 32, 11008, norm_eps=1e-6, max_positions=2048),
    "llama-2-7b": _llama(4096, 32, 32, 32, 11008, max_positions=4096),
    "llama-3.1-8b": _llama3(4096, 32, 14336, 8.0, tied=False),
    "llama-3.2-1b": _llama3(2048, 16, 8192, 32.0, tied=True),
    "smollm2-135m": _smollm2(576, 30, 9, 3, 1536, 1e5),
    "smollm2-360m": _smollm2(960, 32, 15, 5, 2560, 1e5),
    "smollm2-1.7b": _smollm2(2048, 24, 32, 32, 8192, 1.3e5),
    "qwen2.5-0.5b": _qwen(896, 24, 14, 2, 4864, **_QWEN25),
    "qwen2.5-1.5b": _qwen(1536, 28, 12, 2, 8960, **_QWEN25),
    "qwen3-0.6b": _qwen(1024, 28, 16, 8, 3072, **_QWEN3),
    "qwen3-1.7b": _qwen(2048, 28, 16, 8, 6144, **_QWEN3),
}
"""Decoders by name, as published: the vocabulary is the checkpoint's, before any row of ours."""
