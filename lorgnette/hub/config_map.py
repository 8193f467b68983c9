"""Settings in both directions: transformers' `config.json` <-> `VLMConfig`, one table per part.

A row of a table is one setting under our name and under transformers' name, with what transformers assumes where
`config.json` is silent. What a table cannot represent is refused with a sentence, never dropped.
"""

from __future__ import annotations

from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub.decoders.decoder_map import read_decoder, write_decoder
from lorgnette.hub.decoders.setting_rows import (
    SILU,
    Json,
    MappedSetting,
    decimal,
    group_of,
    need,
    read_rows,
    refuse_others,
    whole_number,
    write_rows,
)
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.vision_config import VisionConfig

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
    "idefics3": {"image_size": 224, "patch_size": 32, "hidden_size": 1152, "num_attention_heads": 16},
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
WRITTEN_FAMILIES = {"siglip": "SigLIP", "clip": "CLIP"}
"""Families whose settings are written, by the name of their class."""
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

TEXT_OF_IDEFICS2 = {"model_type": "mistral", "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "pad_token_id": 0}
"""The decoder of an Idefics2 config without a `text_config`."""


PROJECTION_LIKE_DECODER = "the projection of images has the decoder's activation there, which is SiLU here"

# --- From transformers ------------------------------------------------------------------------------------------------


def read_vision(values: Json, where: str, family: str = "siglip") -> VisionConfig:
    """The config of an encoder in SigLIP's keys; mean and deviation of the pixels stand in the processor's files.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    values = VISION_DEFAULTS[family] | values
    ours = read_rows(VISION_SETTINGS, values, where)
    ours["patch"] = whole_number(values, "patch_size", where)
    if ours["channels"] > MOST_CHANNELS:
        raise CheckpointError(f"{where}: num_channels is {ours['channels']}; images have 3")
    ours |= {"mean": (0.5,) * ours["channels"], "std": (0.5,) * ours["channels"]}
    ours["grid"] = whole_number(values, "image_size", where, least=ours["patch"]) // ours["patch"]
    theirs = values.get("hidden_act", "gelu_pytorch_tanh")
    named = [name for name, there in ACTIVATION_NAMES.items() if there == theirs]
    if not named:
        raise CheckpointError(
            f"{where}: hidden_act is {theirs!r:.60}; known are {', '.join(ACTIVATION_NAMES.values())}"
        )
    return VisionConfig.parse(ours | {"activation": named[0]} | VISION_CHOICES.get(family, {}), where)


def read_idefics2(values: Json, where: str) -> VLMConfig:
    """The config of a whole Idefics2, all rows of its vocabulary counted as pre-trained.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    vision, text, perceiver = (group_of(values, f"{part}_config", where) for part in ("vision", "text", "perceiver"))
    text = {"model_type": "mistral"} | text if text else dict(TEXT_OF_IDEFICS2)
    language = read_decoder(text, f"{where}: text_config", tied=bool(values.get("tie_word_embeddings", False)))
    if language.activation != "silu":
        raise CheckpointError(f"{where}: text_config is a {language.family}, and {PROJECTION_LIKE_DECODER}")
    here = f"{where}: perceiver_config"
    refuse_others((SILU,), perceiver, here)
    connector = read_rows(PERCEIVER_SETTINGS, perceiver, here)
    matches = perceiver.get("hidden_size", PERCEIVER_WIDTH) == language.width
    # transformers takes the decoder's epsilon where the perceiver's width is silent and not the decoder's
    connector["norm_eps"] = decimal(perceiver.get("rms_norm_eps", PERCEIVER_EPS)) if matches else language.norm_eps
    connector["projection_width"] = language.mlp_width
    return VLMConfig(
        vision=read_vision(vision, f"{where}: vision_config", "idefics2"),
        connector=PerceiverConfig.parse(connector, here),
        language=language,
        extra_vocabulary=0,
        image_token=whole_number(values, "image_token_id", where, default=32001),
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
    need("fusion", config.fusion, "autoregressive", "its only fusion there")
    need("language.activation", language.activation, "silu", PROJECTION_LIKE_DECODER)
    for name, needed, why in (
        ("projection_width", language.mlp_width, "the decoder's MLP width"),
        ("width_of", "decoder", "its only value there"),
        ("mlp", "swiglu", "its only value there"),
        ("mlp_ratio", 4, "its only value there"),
        ("norm", "rms", "its only value there"),
        ("qk_norm", False, "its only value there"),
    ):
        need(f"connector.{name}", getattr(perceiver, name), needed, why)
    resampler = write_rows(PERCEIVER_SETTINGS, perceiver) | {"hidden_act": "silu", "hidden_size": language.width}
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


def write_vision(vision: VisionConfig, family: str = "siglip", **otherwise: Any) -> Json:
    """The config of a SigLIP or CLIP. Raises: CheckpointError for a setting that its class cannot represent.

    otherwise: settings that a model around it has otherwise than the encoder by itself.
    """
    plain = VisionConfig().plain() | VISION_CHOICES.get(family, {}) | otherwise
    for name in SIGLIP_CHOICES:
        need(f"vision.{name}", getattr(vision, name), plain[name], f"what its {WRITTEN_FAMILIES[family]} computes")
    return write_rows(VISION_SETTINGS, vision) | {
        "hidden_act": ACTIVATION_NAMES[vision.activation],
        "image_size": vision.grid * vision.patch,
        "patch_size": vision.patch,
    }
