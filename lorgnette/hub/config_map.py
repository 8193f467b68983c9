"""Settings in both directions: transformers' `config.json` <-> `VLMConfig`, one table per part.

A row of a table is one setting under our name and under transformers' name, with what transformers assumes where
`config.json` is silent. What a table cannot represent is refused with a sentence, never dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.untrusted import quoted

Json = dict[str, Any]


@dataclass(frozen=True)
class MappedSetting:
    """One setting: our name, transformers' name, and transformers' default (None: the key must be there)."""

    ours: str
    theirs: str
    default: Any = None


@dataclass(frozen=True)
class Fixed:
    """A setting of transformers for which we know one value only."""

    theirs: str
    value: Any
    default: Any


VISION_SETTINGS = (
    MappedSetting("width", "hidden_size", 768),
    MappedSetting("layers", "num_hidden_layers", 12),
    MappedSetting("heads", "num_attention_heads", 12),
    MappedSetting("mlp_width", "intermediate_size", 3072),
    MappedSetting("channels", "num_channels", 3),
    MappedSetting("norm_eps", "layer_norm_eps", 1e-6),
)
VISION_DEFAULTS: dict[str, Json] = {
    "idefics2": {"image_size": 224, "patch_size": 32},
    "siglip": {"image_size": 224, "patch_size": 16},
    "siglip2": {"image_size": 256, "patch_size": 16},
    "clip": {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "dinov2": {"image_size": 224, "patch_size": 14, "hidden_act": "gelu"},
    "timm": {"hidden_act": "gelu"},
}
"""Defaults of each family's config class, for keys that a config.json leaves out."""
VISION_CHOICES: dict[str, Json] = {
    "siglip2": {"position_rule": "bilinear_antialias"},
    "clip": {"class_token": "dropped", "norm_before": True, "norm_after": False, "patch_bias": False},
    "dinov2": {"class_token": "dropped", "layer_scale": True, "position_rule": "bicubic"},
    "timm": {"class_token": "dropped", "block_norm": "after", "key_bias": False},
}
"""What each family's class computes where it is not as SigLIP's."""
SIGLIP_CHOICES = (
    *("position_rule", "class_token", "norm_before", "norm_after", "block_norm", "layer_scale"),
    *("key_bias", "patch_bias", "skipped_layers"),
)
"""Settings of which SigLIP's class has one value, which is ours where nothing is said."""
MOST_CHANNELS = 64
"""Channels of an image beyond which a config is refused: a value is kept for each."""
ACTIVATION_NAMES = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}

PERCEIVER_SETTINGS = (
    MappedSetting("latents", "resampler_n_latents", 64),
    MappedSetting("depth", "resampler_depth", 3),
    MappedSetting("heads", "resampler_n_heads", 16),
    MappedSetting("head_width", "resampler_head_dim", 96),
    MappedSetting("kv_heads", "num_key_value_heads", 4),
)
PERCEIVER_WIDTH, PERCEIVER_EPS = 4096, 1e-6

DECODER_SETTINGS = (
    MappedSetting("vocabulary", "vocab_size"),
    MappedSetting("width", "hidden_size", 4096),
    MappedSetting("layers", "num_hidden_layers", 32),
    MappedSetting("heads", "num_attention_heads", 32),
    MappedSetting("mlp_width", "intermediate_size"),
    MappedSetting("max_positions", "max_position_embeddings"),
    MappedSetting("norm_eps", "rms_norm_eps", 1e-6),
)
FAMILIES: dict[str, Json] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {"vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072}
    | {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
    | {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
}
"""Defaults of each family's config class in transformers, for keys that a config.json leaves out."""
SILU = Fixed("hidden_act", "silu", "silu")
DECODER_FIXED = (SILU, Fixed("attention_bias", False, False), Fixed("mlp_bias", False, False))
TEXT_OF_IDEFICS2 = {"model_type": "mistral", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "pad_token_id": 0}
"""The decoder of an Idefics2 config without a `text_config`."""


# --- From transformers ------------------------------------------------------------------------------------------------


def read_vision(values: Json, where: str, family: str = "siglip") -> VisionConfig:
    """The config of an encoder in SigLIP's keys; mean and deviation of the pixels stand in the processor's files.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    values = VISION_DEFAULTS[family] | values
    ours = _read(VISION_SETTINGS, values, where)
    ours["patch"] = _size(values, "patch_size", where)
    if ours["channels"] > MOST_CHANNELS:
        raise CheckpointError(f"{where}: num_channels is {ours['channels']}; images have 3")
    ours |= {"mean": (0.5,) * ours["channels"], "std": (0.5,) * ours["channels"]}
    ours["grid"] = _size(values, "image_size", where, least=ours["patch"]) // ours["patch"]
    theirs = values.get("hidden_act", "gelu_pytorch_tanh")
    named = [name for name, there in ACTIVATION_NAMES.items() if there == theirs]
    if not named:
        raise CheckpointError(
            f"{where}: hidden_act is {theirs!r:.60}; known are {', '.join(ACTIVATION_NAMES.values())}"
        )
    return VisionConfig.parse(ours | {"activation": named[0]} | VISION_CHOICES.get(family, {}), where)


def read_decoder(values: Json, where: str, tied: bool | None = None) -> LanguageConfig:
    """The config of a decoder. `tied` overrules its own `tie_word_embeddings`, as the whole of an Idefics2 does.

    Raises: CheckpointError if the family or one of its options is not ours.
    """
    family = values.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(f"{where}: model_type is {family!r:.60}; known decoders are {', '.join(FAMILIES)}")
    values = FAMILIES[family] | values
    _refuse(DECODER_FIXED, values, where)
    ours = _read(DECODER_SETTINGS, values, where)
    for name, key, silent in (
        ("kv_heads", "num_key_value_heads", ours["heads"]),
        ("head_width", "head_dim", ours["width"] // ours["heads"]),
    ):
        ours[name] = silent if values.get(key) is None else _size(values, key, where)
    ours |= {"family": family, "qk_norm": family == "qwen3", "attention_bias": family == "qwen2"}
    ours["rope_theta"], ours["rope_scaling"] = _read_rope(values, where)
    ours["tied_embeddings"] = values.get("tie_word_embeddings", False) if tied is None else tied
    ours["sliding_window"] = _read_window(values, family, ours["layers"], where)
    return LanguageConfig.parse(ours, where)


def read_idefics2(values: Json, where: str) -> VLMConfig:
    """The config of a whole Idefics2, all rows of its vocabulary counted as pre-trained.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    vision, text, perceiver = (_group(values, f"{part}_config", where) for part in ("vision", "text", "perceiver"))
    text = {"model_type": "mistral"} | text if text else dict(TEXT_OF_IDEFICS2)
    language = read_decoder(text, f"{where}: text_config", tied=bool(values.get("tie_word_embeddings", False)))
    here = f"{where}: perceiver_config"
    _refuse((SILU,), perceiver, here)
    connector = _read(PERCEIVER_SETTINGS, perceiver, here)
    matches = perceiver.get("hidden_size", PERCEIVER_WIDTH) == language.width
    # transformers takes the decoder's epsilon where the perceiver's width is silent and not the decoder's
    connector["norm_eps"] = decimal(perceiver.get("rms_norm_eps", PERCEIVER_EPS)) if matches else language.norm_eps
    connector["projection_width"] = language.mlp_width
    return VLMConfig(
        vision=read_vision(vision, f"{where}: vision_config", "idefics2"),
        connector=PerceiverConfig.parse(connector, here),
        language=language,
        extra_vocabulary=0,
        image_token=_size(values, "image_token_id", where, default=32001),
    )


# --- To transformers --------------------------------------------------------------------------------------------------


def write_idefics2(config: VLMConfig) -> Json:
    """`config.json` of the whole model for transformers' Idefics2.

    Raises: CheckpointError if transformers' classes cannot represent a setting, with the setting and what they can.
    """
    language, perceiver = config.language, config.connector
    if not isinstance(config.vision, VisionConfig):
        raise CheckpointError(f"transformers' Idefics2 has a ViT; it cannot hold vision.kind={config.vision.kind}")
    if not isinstance(perceiver, PerceiverConfig):
        raise CheckpointError(f"transformers' Idefics2 has a perceiver; it cannot hold connector.kind={perceiver.kind}")
    _need("fusion", config.fusion, "autoregressive", "its only fusion there")
    for name, needed, why in (
        ("projection_width", language.mlp_width, "the decoder's MLP width"),
        ("width_of", "decoder", "its only value there"),
        ("mlp", "swiglu", "its only value there"),
        ("mlp_ratio", 4, "its only value there"),
        ("norm", "rms", "its only value there"),
        ("qk_norm", False, "its only value there"),
    ):
        _need(f"connector.{name}", getattr(perceiver, name), needed, why)
    resampler = _write(PERCEIVER_SETTINGS, perceiver) | {"hidden_act": "silu", "hidden_size": language.width}
    return {
        "architectures": ["Idefics2ForConditionalGeneration"],
        "model_type": "idefics2",
        "image_token_id": config.image_token,
        "tie_word_embeddings": language.tied_embeddings,
        "use_cache": True,
        "vision_config": write_vision(config.vision) | {"model_type": "idefics2_vision"},
        "perceiver_config": resampler | {"model_type": "idefics2_perceiver", "rms_norm_eps": perceiver.norm_eps},
        "text_config": write_decoder(language) | {"vocab_size": config.vocabulary},
    }


def write_vision(vision: VisionConfig) -> Json:
    """The config of a SigLIP. Raises: CheckpointError for a setting that its class cannot represent."""
    plain = VisionConfig()
    for name in SIGLIP_CHOICES:
        _need(f"vision.{name}", getattr(vision, name), getattr(plain, name), "what its SigLIP computes")
    return _write(VISION_SETTINGS, vision) | {
        "hidden_act": ACTIVATION_NAMES[vision.activation],
        "image_size": vision.grid * vision.patch,
        "patch_size": vision.patch,
    }


def write_decoder(language: LanguageConfig) -> Json:
    """The config of a decoder of its own family. Raises: CheckpointError if the family cannot represent a setting."""
    family = language.family
    _need("language.qk_norm", language.qk_norm, family == "qwen3", f"what {family} has there")
    _need("language.attention_bias", language.attention_bias, family == "qwen2", f"what {family} has there")
    if family == "llama":
        _need("language.sliding_window", language.sliding_window, None, "its only value there")
    rope = {"rope_type": "default"} | (language.rope_scaling or {}) | {"rope_theta": language.rope_theta}
    values = _write(DECODER_SETTINGS, language) | {
        "model_type": family,
        "hidden_act": "silu",
        "num_key_value_heads": language.kv_heads,
        "head_dim": language.head_width,
        "rope_parameters": rope,
        "tie_word_embeddings": language.tied_embeddings,
        "attention_dropout": 0.0,
    }
    if family != "llama":
        values["sliding_window"] = language.sliding_window
    if family in ("qwen2", "qwen3"):
        values |= {"use_sliding_window": language.sliding_window is not None, "max_window_layers": 0}
    return values


# --- Helpers ----------------------------------------------------------------------------------------------------------


def _read(rows: tuple[MappedSetting, ...], values: Mapping[str, Any], where: str) -> Json:
    return {
        row.ours: decimal(values.get(row.theirs, row.default))
        if row.theirs.endswith("_eps")
        else _size(values, row.theirs, where, row.default)
        for row in rows
    }


def decimal(value: Any) -> Any:
    """A number as its author wrote it, where a file holds what float32 made of it: 1e-05 for 9.999999747378752e-06."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.7g}")
    packed = (struct.unpack("f", struct.pack("f", one))[0] for one in (short, value) if abs(one) < MOST_FLOAT32)
    return short if len({*packed}) == 1 and struct.unpack("f", struct.pack("f", value))[0] == value else value


MOST_FLOAT32 = 3e38


def _write(rows: tuple[MappedSetting, ...], config: VisionConfig | PerceiverConfig | LanguageConfig) -> Json:
    return {row.theirs: getattr(config, row.ours) for row in rows}


def _size(values: Mapping[str, Any], key: str, where: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of at least `least` under `key`."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CheckpointError(f"{where}: {key} is {value!r:.60}; expected a whole number of at least {least}")
    return value


def _group(values: Json, key: str, where: str) -> Json:
    group = values.get(key)
    if group is None:
        return {}
    if not isinstance(group, dict):
        raise CheckpointError(f"{where}: {key} is a {type(group).__name__}; expected a group of settings")
    return group


def _refuse(fixed: tuple[Fixed, ...], values: Mapping[str, Any], where: str) -> None:
    for row in fixed:
        value = values.get(row.theirs)
        value = row.default if value is None else value
        if value != row.value:
            raise CheckpointError(f"{where}: {row.theirs} is {value!r:.60}; lorgnette knows {row.value!r} only")


def _need(name: str, value: Any, needed: Any, why: str) -> None:
    if value != needed:
        raise CheckpointError(f"{name} is {value!r}, but for transformers it must be {needed!r}: {why}")


def _read_rope(values: Json, where: str) -> tuple[Any, Json | None]:
    """Base and scaling of the rotary embedding, from the new form (`rope_parameters`) or the old (`rope_scaling`)."""
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{where}: rope_parameters is a {type(given).__name__}; expected a group of settings")
    rope = {key: value for key, value in _one_rope(given, where).items() if value is not None and key not in UNREAD}
    theta = rope.pop("rope_theta", values.get("rope_theta") or 10000.0)
    old_name = rope.pop("type", "default")
    kind = rope.setdefault("rope_type", old_name)
    if (rope.pop("partial_rotary_factor", None) or values.get("partial_rotary_factor") or 1) != 1:
        raise CheckpointError(
            f"{where}: partial_rotary_factor is not 1; lorgnette's rotary embedding turns whole heads"
        )
    if kind == "default":
        if len(rope) > 1:
            extra = quoted(", ".join(sorted(rope.keys() - {"rope_type"})), 80)
            raise CheckpointError(
                f"{where}: rope_parameters has {extra}, but no rope_type that obeys it; add or remove it"
            )
        return theta, None
    if kind in ("llama3", "yarn", "longrope"):
        outside = values.get("original_max_position_embeddings")
        original = rope.get("original_max_position_embeddings", values["max_position_embeddings"])
        rope["original_max_position_embeddings"] = original if outside is None else outside
    if kind == "yarn" and "factor" not in rope:
        rope["factor"] = values["max_position_embeddings"] / _size(rope, "original_max_position_embeddings", where)
    return theta, rope


UNREAD = frozenset({"attn_factor", "finetuned"})
"""Keys of rope_scaling that published files have and no class of transformers reads."""


def _one_rope(given: Json, where: str) -> Json:
    """The group that all layers share, where newer files give one for each kind of layer."""
    groups = [value for value in given.values() if isinstance(value, dict)]
    if not groups:
        return given
    if len(groups) < len(given) or any(group != groups[0] for group in groups):
        raise CheckpointError(f"{where}: rope_parameters differ between kinds of layers; lorgnette has one for all")
    return groups[0]


def _read_window(values: Json, family: str, layers: int, where: str) -> int | None:
    """The sliding window that all layers share, or None. Windows on some layers only are refused."""
    kinds = values.get("layer_types")
    if kinds is not None:
        _check_layer_types(kinds, family, layers, where)
    if family == "llama" or values.get("sliding_window") is None:
        return None
    window = _size(values, "sliding_window", where)
    if family == "mistral":
        return window
    first = layers
    if values.get("use_sliding_window"):
        first = min(_size(values, "max_window_layers", where, default=28, least=0), layers)
    if kinds is None and first not in (0, layers):
        raise CheckpointError(f"{where}: {ONE_WINDOW}")
    slides = first < layers if kinds is None else kinds[0] == "sliding_attention"
    return window if slides else None


ONE_WINDOW = "lorgnette's decoder has a sliding window on all layers or on none"


def _check_layer_types(kinds: Any, family: str, layers: int, where: str) -> None:
    """Raises: CheckpointError for kinds of layers that this decoder does not have, or not one for each layer."""
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise CheckpointError(
            f"{where}: layer_types is {quoted(kinds, 80)}; expected a kind for each of {layers} layers"
        )
    known = ("full_attention",) if family == "llama" else ("full_attention", "sliding_attention")
    if any(kind not in known for kind in kinds):
        raise CheckpointError(
            f"{where}: layer_types holds {quoted(next(kind for kind in kinds if kind not in known), 60)};"
            f" {family}'s layers are {' or '.join(known)} here"
        )
    if len(set(kinds)) > 1:
        raise CheckpointError(f"{where}: {ONE_WINDOW}")
