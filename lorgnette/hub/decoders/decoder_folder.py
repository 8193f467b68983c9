"""Folders of decoders: one by itself, or the text model within a Gemma 3 that sees."""

from __future__ import annotations

import re
from pathlib import Path

from lorgnette.hub import keys
from lorgnette.hub.checkpoint import BUFFERS, Weights
from lorgnette.hub.decoders.decoder_map import read_decoder
from lorgnette.hub.decoders.setting_rows import group_of
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.configs.language_config import LanguageConfig

GEMMA3 = keys.Section(
    obeyed=keys.keys("model_type text_config tie_word_embeddings", "hub/decoders/decoder_folder.py")
    | {"eos_token_id": keys.RULES},
    irrelevant=keys.COMMON
    | keys.DECODING
    | keys.keys("vision_config mm_tokens_per_image boi_token_index eoi_token_index", "its vision part is not used")
    | keys.keys("boi_token_id eoi_token_id image_token_id image_token_index", "its vision part is not used")
    | keys.keys("dtype torch_dtype", "a join says its own type"),
    refused=keys.NOT_OURS,
    said=keys.CODE | keys.OLD_CONFIG,
)
"""Keys of the config.json of a `Gemma3ForConditionalGeneration`, of which the decoder is read."""
NOT_TEXT = re.compile(rf"^(model\.)?(vision_tower|multi_modal_projector)\.|{BUFFERS.pattern}")
"""Tensors of such a whole beside its decoder."""


def open_decoder(folder: Path) -> tuple[LanguageConfig, Weights]:
    """Settings of the decoder in a folder, and its weights under the names that its own class gives them, or bare.

    Raises: CheckpointError if its family or a setting is not ours.
    """
    file = folder / "config.json"
    values = read_json(file)
    if values.get("model_type") != "gemma3":
        keys.check_keys(folder, keys.TEXT)
        return read_decoder(values, str(file)), Weights(folder)
    keys.check_keys(folder, GEMMA3)
    text, where = group_of(values, "text_config", str(file)), f"{file}: text_config"
    keys.check_section(keys.TEXT, text, where)
    tied = bool(values.get("tie_word_embeddings", True))
    weights = Weights(folder, NOT_TEXT)
    for name in sorted(weights.names):
        weights.rename(name, _without_whole(name))
    return read_decoder({"model_type": "gemma3_text"} | text, where, tied), weights


def _without_whole(name: str) -> str:
    """The name of a tensor where the decoder is by itself, from any of the forms that the whole had."""
    name = re.sub(r"^(model\.)?language_model\.(?!lm_head\.)(model\.)?", "model.", name)
    return name.removeprefix("language_model.")
