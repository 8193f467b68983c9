"""Idefics3 and SmolVLM in both directions: `config.json` <-> `VLMConfig`. Their two classes compute the same.

What is written is also what vLLM and llama.cpp serve: they build a Llama, whatever the decoder's settings say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import Weights
from lorgnette.hub.config_map import read_vision, write_vision
from lorgnette.hub.decoders.decoder_map import FAMILIES, read_decoder, write_decoder
from lorgnette.hub.decoders.setting_rows import Json, group_of, need, whole_number
from lorgnette.hub.weight_map import Rule
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.processors.idefics3_files import CLASS_PREFIXES
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import PixelShuffleConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import VisionConfig

TEXT_OF_IDEFICS3 = {"model_type": "llama", "rms_norm_eps": 1e-5}
"""The decoder of a config without a `text_config`."""
SERVED = ("llama", "mistral", "qwen2")
"""Families of decoders that are a Llama, or can be written as one."""
MOST_TILES = 6
"""Tiles along a side for which tokenizers of SmolVLM have tags."""
OUTPUT_BIAS = re.compile(r"(^|\.)layers\.\d+\.self_attn\.o_proj\.bias$")


def read_idefics3(values: Json, where: str) -> VLMConfig:
    """The config of a whole Idefics3 or SmolVLM, all rows of its vocabulary counted as pre-trained.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    vision, text = (group_of(values, f"{part}_config", where) for part in ("vision", "text"))
    text = {"model_type": "llama"} | text if text else dict(TEXT_OF_IDEFICS3)
    if text["model_type"] == "llama" and text.get("attention_bias"):
        text = _as_qwen2(text)
    return VLMConfig(
        vision=read_vision(vision, f"{where}: vision_config", "idefics3"),
        connector=PixelShuffleConfig(side=whole_number(values, "scale_factor", where, default=2)),
        language=read_decoder(text, f"{where}: text_config", tied=bool(values.get("tie_word_embeddings", False))),
        extra_vocabulary=0,
        image_token=whole_number(values, "image_token_id", where, default=128257, least=0),
    )


def _as_qwen2(text: Json) -> Json:
    """Settings of a Llama whose queries, keys and values have biases: what Qwen 2.5 computes."""
    text = FAMILIES["llama"] | text
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads", 32)
    left = {key: value for key, value in text.items() if key != "attention_bias"}
    return left | {"model_type": "qwen2", "num_key_value_heads": heads, "sliding_window": None}


def write_idefics3(config: VLMConfig, kind: str = "idefics3") -> Json:
    """`config.json` of the whole model for transformers' Idefics3 or, by `kind`, SmolVLM.

    Raises: CheckpointError for a setting that its class cannot represent, or that servers would not obey.
    """
    vision, shuffle, name = config.vision, config.connector, CLASS_PREFIXES[kind]
    if not isinstance(vision, VisionConfig):
        raise CheckpointError(f"transformers' {name} has a ViT; it cannot hold vision.kind={vision.kind}")
    if not isinstance(shuffle, PixelShuffleConfig):
        raise CheckpointError(
            f"transformers' {name} joins squares of patches by pixel_shuffle; it cannot hold"
            f" connector.kind={shuffle.kind}"
        )
    need("fusion", config.fusion, "autoregressive", "its only fusion there")
    if vision.grid % shuffle.side:
        raise CheckpointError(
            f"vision.grid is {vision.grid} patches, but for transformers' {name} it must be a multiple of"
            f" connector.side, {shuffle.side}: a tile is one square of this grid"
        )
    return {
        "architectures": [f"{name}ForConditionalGeneration"],
        "model_type": kind,
        "image_token_id": config.image_token,
        "scale_factor": shuffle.side,
        "tie_word_embeddings": config.language.tied_embeddings,
        "use_cache": True,
        "vision_config": write_vision(vision) | {"model_type": f"{kind}_vision"},
        "text_config": _write_served(config.language, name) | {"vocab_size": config.vocabulary},
    }


def _write_served(language: LanguageConfig, name: str) -> Json:
    """The decoder as a Llama. Qwen 2.5 is one with biases, of which that of the output is zero.

    Raises: CheckpointError for one that is none.
    """
    if language.family not in SERVED:
        raise CheckpointError(
            f"language.family is {language.family}, but servers of {name} build a Llama whatever its settings say, and"
            f" only {', '.join(SERVED)} fit; export it with --format llava, which asks for an MLP connector"
        )
    window = language.sliding_window
    if window is not None and window < language.max_positions:
        raise CheckpointError(
            f"language.sliding_window is {window}, less than the {language.max_positions} positions: servers of {name}"
            f" build a Llama, which has none; set language.max_positions to {window} or less"
        )
    if language.family != "qwen2":
        return write_decoder(language)
    plain = language.plain() | {"family": "llama", "attention_bias": False, "sliding_window": None}
    return write_decoder(LanguageConfig.parse(plain)) | {"attention_bias": True}


def check_idefics3_inputs(config: VLMConfig, processor: Processor, kind: str = "idefics3") -> None:
    """Raises: CheckpointError for texts or images that the class's processor cannot make, with the setting."""
    images, name = processor.images, CLASS_PREFIXES[kind]
    side = config.vision.grid * config.vision.patch
    need("images.policy", images.policy, "tiles", f"{name} cuts images in tiles")
    need("images.shortest", images.shortest, side, "a tile is as large as the encoder's own image")
    if images.longest > MOST_TILES * side:
        raise CheckpointError(
            f"images.longest is {images.longest}, but {name} has names for {MOST_TILES} tiles of {side} pixels a side;"
            f" set it to {MOST_TILES * side} or less"
        )
    for key, value in SpecialTokens().plain().items():
        need(f"special.{key}", getattr(processor.special, key), value, f"its name in {name}Processor")


@dataclass(frozen=True)
class ZeroBias(Rule):
    """A bias that a class has and lorgnette lacks, written as zeros; `ours` is a tensor of as many numbers."""

    def to_theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros_like(ours[self.ours[0]].detach()).contiguous()


def zero_biases(config: VLMConfig) -> list[Rule]:
    """Biases of attention's output, which a Llama with `attention_bias` has and Qwen 2.5 lacks."""
    if not config.language.attention_bias:
        return []
    return [
        ZeroBias(
            f"model.text_model.layers.{layer}.self_attn.o_proj.bias", (f"language.layers.{layer}.mlp_norm.weight",)
        )
        for layer in range(config.language.layers)
    ]


def settle_idefics3(weights: Weights, config: VLMConfig) -> None:
    """Leave out biases of attention's output, which are zero. Raises: CheckpointError for one that is not."""
    if not config.language.attention_bias:
        return
    for name in sorted(weights.names):
        if OUTPUT_BIAS.search(name):
            if weights.tensor(name).any():
                raise CheckpointError(
                    f"{weights.folder}: {name} is not zero; lorgnette's decoders have no bias of attention's output"
                )
            weights.forget(name)
