"""Presets: known models as rows of sizes, by the name that `preset` gives in `model`, `model.vision`, `model.language`.

To add a model of a known family, add a row. `lorgnette presets` prints the tables.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

Values = dict[str, Any]
"""Settings as a file has them."""


def _named(names: str, *values: Any) -> Values:
    return dict(zip(names.split(), values, strict=True))


def _vit(width: int, layers: int, heads: int, mlp_width: int, patch: int, grid: int) -> Values:
    return _named("width layers heads mlp_width patch grid", width, layers, heads, mlp_width, patch, grid)


def _llama(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, **rest: Any) -> Values:
    sizes = _named("width layers heads kv_heads mlp_width", width, layers, heads, kv_heads, mlp_width)
    return {"family": "llama", "head_width": width // heads} | sizes | rest


def _llama3(width: int, layers: int, heads: int, mlp_width: int, factor: float, tied: bool) -> Values:
    stretched = _named("rope_type factor low_freq_factor high_freq_factor", "llama3", factor, 1.0, 4.0)
    rope = {"rope_theta": 500000.0, "rope_scaling": stretched | {"original_max_position_embeddings": 8192}}
    rest = _named("vocabulary max_positions tied_embeddings", 128256, 131072, tied)
    return _llama(width, layers, heads, 8, mlp_width, **rest, **rope)


def _smollm2(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, theta: float) -> Values:
    rest = _named("vocabulary rope_theta max_positions tied_embeddings", 49152, theta, 8192, True)
    return _llama(width, layers, heads, kv_heads, mlp_width, **rest)


def _qwen(width: int, layers: int, heads: int, kv_heads: int, mlp_width: int, **rest: Any) -> Values:
    common = _named("vocabulary norm_eps rope_theta tied_embeddings", 151936, 1e-6, 1e6, True)
    return _llama(width, layers, heads, kv_heads, mlp_width, **common | rest)


_QWEN25 = _named("family attention_bias max_positions", "qwen2", True, 32768)
_QWEN3 = _named("family qk_norm head_width max_positions", "qwen3", True, 128, 40960)

_CLIP_PIXELS = _named("mean std", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_CLIP = _CLIP_PIXELS | _named(
    "norm_eps class_token norm_before norm_after patch_bias", 1e-5, "dropped", True, False, False
)
_EVA = _CLIP_PIXELS | _named("activation class_token block_norm key_bias", "gelu", "dropped", "after", False)
_DINOV2 = _named("mean std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) | {"position_rule": "bicubic"}
_DINOV2 |= _named("activation class_token layer_scale", "gelu", "dropped", True)
_SMOLLM3 = _named("family vocabulary norm_eps rope_theta no_rope_every", "smollm3", 128256, 1e-6, 5e6, 4)
_PHI3 = _named("family vocabulary sliding_window max_positions", "phi3", 32064, 2047, 4096)

_GEMMA = _named("family vocabulary norm_eps activation", "gemma", 256000, 1e-6, "gelu_tanh") | _named(
    "norm_offset scaled_embedding tied_embeddings head_width max_positions", True, True, True, 256, 8192
)
_GEMMA2 = _GEMMA | _named("family post_norms score_cap logit_cap", "gemma2", True, 50.0, 30.0)
_GEMMA2 |= _named("sliding_window global_every", 4096, 2)
_GEMMA3 = _GEMMA | _named("family post_norms qk_norm global_every", "gemma3_text", True, True, 6)
_GEMMA3 |= _named("rope_theta local_rope_theta vocabulary", 1e6, 1e4, 262144)
_GEMMA3_SHORT = _GEMMA3 | _named("sliding_window max_positions", 512, 32768)
_GEMMA3_LONG = _GEMMA3 | _named("vocabulary sliding_window max_positions", 262208, 1024, 131072)
_GEMMA3_LONG |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}

VISION_PRESETS: dict[str, Values] = {
    "siglip-so400m": _vit(1152, 27, 16, 4304, patch=14, grid=70),
    "siglip-base-16-224": _vit(768, 12, 12, 3072, patch=16, grid=14),
    "siglip-large-16-384": _vit(1024, 24, 16, 4096, patch=16, grid=24),
    "siglip2-so400m-16-naflex": _vit(1152, 27, 16, 4304, patch=16, grid=16) | {"position_rule": "bilinear_antialias"},
    "siglip2-giant-opt-16-384": _vit(1536, 40, 16, 6144, patch=16, grid=24),
    "clip-vit-l-14-336": _vit(1024, 24, 16, 4096, patch=14, grid=24) | _CLIP | {"activation": "quick_gelu"},
    "clip-vit-h-14": _vit(1280, 32, 16, 5120, patch=14, grid=16) | _CLIP | {"activation": "gelu"},
    "eva02-clip-e-14-plus": _vit(1792, 64, 16, 15360, patch=14, grid=16) | _EVA,
    "dinov2-large": _vit(1024, 24, 16, 4096, patch=14, grid=37) | _DINOV2,
}
"""Vision encoders by name. `siglip-so400m` has Idefics2's 70 x 70 positions, the others their checkpoint's. The image
tower of `eva02-clip-e-14-plus` is that of EVA-02-CLIP-E/14 too: the two differ in their text models."""

LANGUAGE: dict[str, Values] = {
    "mistral-7b": _llama(4096, 32, 32, 8, 14336, family="mistral", vocabulary=32000, sliding_window=4096)
    | {"max_positions": 32768},
    "llama-1-7b": _llama(4096, 32, 32, 32, 11008, vocabulary=32000, norm_eps=1e-6, max_positions=2048),
    "llama-2-7b": _llama(4096, 32, 32, 32, 11008, vocabulary=32000, max_positions=4096),
    "llama-3.1-8b": _llama3(4096, 32, 32, 14336, 8.0, tied=False),
    "llama-3.2-1b": _llama3(2048, 16, 32, 8192, 32.0, tied=True),
    "llama-3.2-3b": _llama3(3072, 28, 24, 8192, 32.0, tied=True),
    "smollm2-135m": _smollm2(576, 30, 9, 3, 1536, 1e5),
    "smollm2-360m": _smollm2(960, 32, 15, 5, 2560, 1e5),
    "smollm2-1.7b": _smollm2(2048, 24, 32, 32, 8192, 1.3e5),
    "smollm3-3b": _llama(2048, 36, 16, 4, 11008, **_SMOLLM3, tied_embeddings=True, max_positions=65536),
    "phi-3-mini-4k": _llama(3072, 32, 32, 32, 8192, **_PHI3),
    "gemma-2b": _llama(2048, 18, 8, 1, 16384, **_GEMMA),
    "gemma-7b": _llama(3072, 28, 16, 16, 24576, **_GEMMA),
    "gemma-2-2b": _llama(2304, 26, 8, 4, 9216, **_GEMMA2),
    "gemma-2-9b": _llama(3584, 42, 16, 8, 14336, **_GEMMA2),
    "gemma-3-270m": _llama(640, 18, 4, 1, 2048, **_GEMMA3_SHORT),
    "gemma-3-1b": _llama(1152, 26, 4, 1, 6912, **_GEMMA3_SHORT),
    "gemma-3-4b": _llama(2560, 34, 8, 4, 10240, **_GEMMA3_LONG),
    "qwen2.5-0.5b": _qwen(896, 24, 14, 2, 4864, **_QWEN25),
    "qwen2.5-1.5b": _qwen(1536, 28, 12, 2, 8960, **_QWEN25),
    "qwen2.5-7b": _qwen(3584, 28, 28, 4, 18944, **_QWEN25 | _named("vocabulary tied_embeddings", 152064, False))
    | {"max_positions": 131072},
    "qwen3-0.6b": _qwen(1024, 28, 16, 8, 3072, **_QWEN3),
    "qwen3-1.7b": _qwen(2048, 28, 16, 8, 6144, **_QWEN3),
    "qwen3-4b": _qwen(2560, 36, 32, 8, 9728, **_QWEN3),
    "qwen3-8b": _qwen(4096, 36, 32, 8, 12288, **_QWEN3 | {"tied_embeddings": False}),
}
"""Decoders by name, as published: the vocabulary is the checkpoint's, before any row of ours."""

_PERCEIVER = "latents depth heads head_width kv_heads"
MODEL: dict[str, Values] = {
    "idefics2": {
        "vision": VISION_PRESETS["siglip-so400m"],
        "connector": _named(_PERCEIVER, 64, 3, 16, 96, 4),
        "language": LANGUAGE["mistral-7b"],
    },
    "idefics1": {
        "vision": VISION_PRESETS["clip-vit-h-14"] | {"class_token": "kept"},
        "connector": _named(_PERCEIVER, 64, 6, 16, 96, 16)
        | _named("width_of norm norm_eps qk_norm mlp", "vision", "layer", 1e-5, True, "relu"),
        "language": LANGUAGE["llama-1-7b"],
        "fusion": _named("kind every kv_heads", "cross_attention", 4, 32),
        "extra_vocabulary": 2,
    },
    "micro": {
        "vision": _vit(192, 4, 6, 768, patch=16, grid=8),
        "connector": _named(_PERCEIVER, 16, 1, 4, 32, 2),
        "language": _llama(128, 4, 4, 2, 384, vocabulary=2045, tied_embeddings=True, max_positions=2048),
    },
}
"""Whole models by name: Idefics2 (paper, §4), Idefics1-9B, and the one of the shipped backbones, on a laptop."""


def expand(values: Any, presets: Mapping[str, Values]) -> Any:
    """Settings with their `preset` written out; those that stand beside it win, group by group.

    A group with a preset, or a kind, of its own takes the place of the whole group.
    Raises: ValueError for an unknown preset, naming the nearest, and for one that nothing is left of.
    """
    if not isinstance(values, dict) or "preset" not in values:
        return values
    name, beside = values["preset"], {key: value for key, value in values.items() if key != "preset"}
    if not isinstance(name, str) or name not in presets:
        near = difflib.get_close_matches(str(name), presets, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known presets: {', '.join(presets)}"
        raise ValueError(f"preset {name!r:.60} is unknown; {hint}")
    if _covers(beside, presets[name]):
        raise ValueError(f"preset {name!r} has no effect, as all of its settings stand beside it; remove either")
    return _over(presets[name], beside)


def expand_model(values: Any) -> Any:
    """As `expand`, of a whole model, with the settings that follow from others unless they are given.

    They are `image_token`, the second row after the decoder's own, and a perceiver's `projection_width`, its MLP's.
    """
    expanded = expand(values, MODEL)
    if expanded is values or not isinstance(expanded["language"], dict):
        return expanded
    language = expand(expanded["language"], LANGUAGE)
    if isinstance(vocabulary := language.get("vocabulary"), int):
        expanded = {"image_token": vocabulary + 1} | expanded
    connector = expanded["connector"]
    connector = {"kind": connector} if isinstance(connector, str) else connector
    perceiver = isinstance(connector, dict) and connector.get("kind", "perceiver") == "perceiver"
    if perceiver and connector.get("width_of") != "vision" and "mlp_width" in language:
        expanded["connector"] = {"projection_width": language["mlp_width"]} | connector
    return expanded


def _over(below: Values, above: Values) -> Values:
    """Settings `above` in the place of those `below`."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        alike = isinstance(value, dict) and isinstance(under, dict) and not value.keys() & {"preset", "kind"}
        merged[key] = _over(under, value) if alike and isinstance(under, dict) else value
    return merged


def _covers(above: Values, below: Values) -> bool:
    """Return whether nothing is left of `below`, with `above` beside it."""
    return all(
        key in above and (not isinstance(value, dict) or not isinstance(above[key], dict) or _covers(above[key], value))
        for key, value in below.items()
    )
