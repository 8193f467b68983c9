"""Idefics1 in both directions: its `config.json` <-> `VLMConfig`, and the names of its tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import Weights
from lorgnette.hub.config_map import read_vision, write_vision
from lorgnette.hub.decoders.decoder_map import read_decoder, write_decoder
from lorgnette.hub.decoders.setting_rows import (
    Json,
    MappedSetting,
    group_of,
    need,
    read_rows,
    whole_number,
    write_rows,
)
from lorgnette.hub.weight_map import Rule, connector_rules, decoder_rules, fusion_rules, vision_rules
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.processors.idefics1_files import IMAGE_NAME, VISION_OF_IDEFICS1
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import ConnectorConfig, IdentityConfig, PerceiverConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.untrusted import quoted

TEXT_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("rms_norm_eps", "max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"),
)
"""Keys of the decoder, which is a Llama and has no group of its own."""
RESAMPLER = (
    MappedSetting("latents", "resampler_n_latents", 64),
    MappedSetting("depth", "resampler_depth", 6),
    MappedSetting("heads", "resampler_n_heads", 16),
    MappedSetting("head_width", "resampler_head_dim", 96),
)
RESAMPLER_CHOICES: Json = {"width_of": "vision", "projection_width": None, "norm": "layer", "norm_eps": 1e-5} | {
    "mlp": "relu", "mlp_ratio": 4
}  # fmt: skip
"""What the class of Idefics1's perceiver computes where settings of ours could say otherwise."""
GATES = {"float": "scalar", "vector": "vector"}
IDEFICS1_TABLE, IDEFICS1_HEAD = "model.embed_tokens.weight", "lm_head.weight"
EXTRA_ROWS = {
    IDEFICS1_TABLE: "model.embed_tokens.additional_embedding.weight",
    IDEFICS1_HEAD: "lm_head.additional_fc.weight",
}
"""Tensors of the rows that were added after those of a table."""
POOLED_NORM = "model.vision_model.post_layernorm."
"""The norm of a pooled state that no block attends to."""


def read_idefics1(values: Json, where: str) -> VLMConfig:
    """The config of a whole Idefics1; which token is the image's its tokenizer says.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    text = {"model_type": "llama"} | {key: values[key] for key in TEXT_KEYS if key in values}
    language = read_decoder(text, where, tied=_switch(values, "tie_word_embeddings", where))
    gate, ours = values.get("alpha_type", "float"), group_of(values, "lorgnette", where)
    if gate not in GATES:
        raise CheckpointError(f"{where}: alpha_type is {quoted(gate, 60)}; known are {', '.join(GATES)}")
    fusion = {
        "every": whole_number(values, "cross_layer_interval", where, default=1),
        "kv_heads": language.heads,
        "qk_norm": _switch(values, "qk_layer_norms", where),
        "gate": GATES[gate],
        "gate_init": ours.get("gate_init", 1.0 if values.get("alpha_initializer") == "ones" else 0.0),
    }
    return VLMConfig.parse(
        {
            "vision": _read_tower(group_of(values, "vision_config", where), f"{where}: vision_config"),
            "connector": _read_connector(values, where),
            "language": language,
            "fusion": CrossAttentionConfig.parse(fusion, where),
            "extra_vocabulary": whole_number(values, "additional_vocab_size", where, default=0, least=0),
        },
        where,
    )


def _read_tower(given: Json, where: str) -> VisionConfig:
    """The vision tower: a CLIP whose class token is kept, and whose states are taken before any norm."""
    widths = {given[key] for key in ("embed_dim", "hidden_size") if given.get(key) is not None}
    if len(widths) > 1:
        raise CheckpointError(f"{where}: embed_dim is {given['embed_dim']}, but hidden_size {given['hidden_size']}")
    values = VISION_OF_IDEFICS1 | given | {"hidden_size": next(iter(widths), 768)}
    return VisionConfig.parse(read_vision(values, where, "clip").plain() | {"class_token": "kept"}, where)


def _read_connector(values: Json, where: str) -> ConnectorConfig:
    if not _switch(values, "use_resampler", where):
        return IdentityConfig(class_tokens=1)
    given, here = group_of(values, "perceiver_config", where), f"{where}: perceiver_config"
    sizes = read_rows(RESAMPLER, given, here)
    sizes |= {"kv_heads": sizes["heads"], "qk_norm": _switch(given, "qk_layer_norms_perceiver", here)}
    return PerceiverConfig.parse(RESAMPLER_CHOICES | sizes, here)


def _switch(values: Json, key: str, where: str) -> bool:
    """A setting that is off unless it is said. Raises: CheckpointError for what is neither true nor false."""
    value = values.get(key) or False
    if not isinstance(value, bool):
        raise CheckpointError(f"{where}: {key} is {quoted(value, 60)}; expected true or false")
    return value


def write_idefics1(config: VLMConfig) -> Json:
    """`config.json` of the whole model for transformers' Idefics.

    Raises: CheckpointError if its class cannot represent a setting, with the setting and what it can.
    """
    vision, fusion, language = config.vision, config.fusion, config.language
    if not isinstance(vision, VisionConfig):
        raise CheckpointError(f"transformers' Idefics has a ViT; it cannot hold vision.kind={vision.kind}")
    if not isinstance(fusion, CrossAttentionConfig):
        raise CheckpointError(f"transformers' Idefics attends to images between layers; it cannot hold fusion={fusion}")
    _check_decoder(language)
    _check_blocks(fusion, language)
    tower = write_vision(vision, "clip", class_token="kept")
    text = write_decoder(language)
    kept = (*TEXT_KEYS, "tie_word_embeddings")
    return {
        "architectures": ["IdeficsForVisionText2Text"],
        "model_type": "idefics",
        **{key: value for key, value in text.items() if key in kept},
        "vocab_size": language.vocabulary,
        "additional_vocab_size": config.extra_vocabulary,
        "cross_layer_interval": fusion.every,
        "qk_layer_norms": fusion.qk_norm,
        "alpha_type": next(theirs for theirs, ours in GATES.items() if ours == fusion.gate),
        "alpha_initializer": "zeros",
        "freeze_text_layers": False,
        "freeze_vision_layers": False,
        "vision_config": {key: value for key, value in tower.items() if key != "hidden_size"}
        | {"model_type": "idefics_vision", "embed_dim": vision.width},
        **_write_connector(config.connector),
        "lorgnette": {"gate_init": fusion.gate_init},
    }


def _check_decoder(language: LanguageConfig) -> None:
    llama = "its decoder is a Llama whose heads share no keys"
    need("language.family", language.family, "llama", llama)
    need("language.kv_heads", language.kv_heads, language.heads, llama)
    need("language.head_width", language.head_width, language.width // language.heads, llama)


def _check_blocks(fusion: CrossAttentionConfig, language: LanguageConfig) -> None:
    fitted = fusion.fitted(language)
    for name, needed, why in (
        ("first", 0, "its first block stands before the first layer"),
        ("sees", "last", "a token sees the last image before it there"),
        ("text_mlp", True, "its blocks run for all tokens"),
        ("heads", language.heads, "as many heads as the decoder has"),
        ("kv_heads", language.heads, "heads of its blocks share no keys"),
        ("head_width", language.head_width, "heads as wide as the decoder's"),
        ("mlp", "swiglu", "its only value there"),
        ("mlp_width", language.mlp_width, "an MLP as wide as the decoder's"),
        ("norm", "rms", "its only value there"),
        ("norm_eps", language.norm_eps, "the decoder's"),
    ):
        need(f"fusion.{name}", getattr(fitted, name), needed, why)


def _write_connector(connector: Any) -> Json:
    if isinstance(connector, IdentityConfig):
        return {"use_resampler": False}
    if not isinstance(connector, PerceiverConfig):
        raise CheckpointError(
            f"transformers' Idefics has a perceiver of the tower's width, or none; it cannot hold"
            f" connector.kind={connector.kind}"
        )
    for name, needed in (RESAMPLER_CHOICES | {"kv_heads": connector.heads}).items():
        need(f"connector.{name}", getattr(connector, name), needed, "its only value there")
    sizes = write_rows(RESAMPLER, connector) | {"qk_layer_norms_perceiver": connector.qk_norm}
    return {"use_resampler": True, "perceiver_config": sizes | {"use_resampler": True}}


def check_idefics1_inputs(config: VLMConfig, processor: Processor) -> None:
    """Raises: CheckpointError for texts or images that an IdeficsProcessor cannot make, with the setting."""
    images, special = processor.images, processor.special
    side = config.vision.grid * config.vision.patch
    need("special.around_image", special.around_image, SpecialTokens().around_image, "its only name")
    need("special.image", special.image, IMAGE_NAME, "its only name")
    need("special.space_after_image", special.space_after_image, False, "its processor puts no space there")
    need("images.policy", images.policy, "square", "every image has the tower's own size")
    need("images.longest", images.longest, side, "every image has the tower's own size")
    need("images.crop_from", images.crop_from, None, "images are stretched")
    need("images.split", images.split, False, "an image is one square")


def idefics1_rules(config: VLMConfig) -> list[Rule]:
    """The whole model, as transformers' `IdeficsForVisionText2Text` names it."""
    fusion, rows = config.fusion, config.extra_vocabulary
    vector = isinstance(fusion, CrossAttentionConfig) and fusion.gate == "vector"
    words = decoder_rules(config.language, "model.", IDEFICS1_HEAD)
    return [
        *vision_rules(config.vision, "model.vision_model."),
        *connector_rules(config.connector, "model."),
        *(_gate(rule) if vector else rule for rule in fusion_rules(config, "model.")),
        *(part for rule in words for part in (_apart(rule) if rule.is_vocabulary and rows else [rule])),
    ]


def _gate(rule: Rule) -> Rule:
    """A gate for each channel stands there as 1,1,D."""
    return replace(rule, leading=2) if ".alpha_" in rule.theirs else rule


def _apart(rule: Rule) -> list[Rule]:
    """A table, and the rows added after it, as two tensors of their own sizes."""
    table, extra = rule.ours
    return [Rule(rule.theirs, (table,)), Rule(EXTRA_ROWS[rule.theirs], (extra,))]


def settle_idefics1(weights: Weights, config: VLMConfig) -> None:
    """Leave out what no answer depends on, and the second of two equal tensors of a tied model.

    Raises: CheckpointError for tied rows that are not equal.
    """
    for name in sorted(weights.names):
        if name.startswith(POOLED_NORM):
            weights.forget(name)
    theirs, tied = EXTRA_ROWS[IDEFICS1_HEAD], EXTRA_ROWS[IDEFICS1_TABLE]
    if config.language.tied_embeddings and theirs in weights.names:
        if tied in weights.names and not torch.equal(weights.tensor(theirs), weights.tensor(tied)):
            raise CheckpointError(
                f"{weights.folder}: {theirs} differs from {tied}, but tie_word_embeddings is true; set it to false"
            )
        weights.forget(theirs)
