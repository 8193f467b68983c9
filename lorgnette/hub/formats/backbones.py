"""The vision encoder or the language model of a whole, as a folder of its own in transformers' format."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from lorgnette.files import write_json, write_text
from lorgnette.hub.checkpoint import write_tensors
from lorgnette.hub.config_map import write_vision
from lorgnette.hub.decoders.decoder_map import write_decoder
from lorgnette.hub.export import checkpoint_folder
from lorgnette.hub.weight_map import decoder_rules, vision_rules
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM

CLASS_NAMES = {"smollm3": "SmolLM3"}
"""Families whose classes in transformers are not their name with a capital."""


def write_vision_backbone(
    model: VLM, processor: Processor, folder: str | Path, dtype: torch.dtype = torch.float32
) -> None:
    """The vision encoder as transformers' `SiglipVisionModel`, without the head that pools an image to one vector."""
    vision = model.config.vision
    side = vision.grid * vision.patch
    pictures = {
        "image_processor_type": "SiglipImageProcessor",
        "image_mean": list(processor.mean),
        "image_std": list(processor.std),
        "size": {"height": side, "width": side},
    }
    settings = {
        "architectures": ["SiglipVisionModel"],
        "model_type": "siglip_vision_model",
        "vision_use_head": False,
        "dtype": str(dtype).removeprefix("torch."),
    }
    with checkpoint_folder(folder, marked=False) as beside:
        write_json(beside / "config.json", settings | write_vision(vision))
        write_json(beside / "preprocessor_config.json", pictures)
        write_tensors(beside, vision_rules(vision, "vision_model."), _weights(model, dtype))


def write_language_backbone(
    model: VLM, processor: Processor, folder: str | Path, dtype: torch.dtype = torch.float32
) -> None:
    """The decoder as a causal language model of its family, without the rows that images and chat added."""
    language, tokenizer = model.config.language, processor.tokenizer
    weights = _weights(model, dtype)
    for table in ("language.embedding", "language.head"):
        if f"{table}.extra" in weights:
            weights[f"{table}.extra"] = weights[f"{table}.extra"][:0]
    settings = {
        "architectures": [f"{CLASS_NAMES.get(language.family, language.family.capitalize())}ForCausalLM"],
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
        "dtype": str(dtype).removeprefix("torch."),
    }
    with checkpoint_folder(folder, marked=False) as beside:
        write_json(beside / "config.json", write_decoder(language) | settings)
        write_tensors(beside, decoder_rules(language, "model."), weights)
        tokenizer.save(beside)
        file = beside / "tokenizer.json"
        values = json.loads(file.read_text(encoding="utf-8"))
        values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] < language.vocabulary]
        write_text(file, json.dumps(values, ensure_ascii=False))


def _weights(model: VLM, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to(dtype) for name, tensor in model.named_parameters()}
