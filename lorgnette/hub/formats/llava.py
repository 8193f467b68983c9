"""LLaVA-1.5 in both directions: its `config.json` <-> `VLMConfig`, and the three forms of names of its tensors."""

from __future__ import annotations

import re

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import Weights
from lorgnette.hub.config_map import read_vision, write_vision
from lorgnette.hub.decoders.decoder_map import read_decoder, write_decoder
from lorgnette.hub.decoders.setting_rows import Fixed, Json, group_of, need, refuse_others, whole_number
from lorgnette.hub.weight_map import Rule, connector_rules, decoder_rules, vision_rules
from lorgnette.inputs.processor import Processor
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import MLPConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.untrusted import quoted

TOWERS = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
"""By `model_type` of the vision tower: the family whose keys it has."""
TOWER_OF_LLAVA: Json = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24} | {
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14
}  # fmt: skip
"""The vision tower of a LLaVA without a `vision_config`: CLIP ViT-L/14-336."""
PROJECTOR = (Fixed("projector_hidden_act", "gelu", "gelu"), Fixed("multimodal_projector_bias", True, True))
TABLE, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
UNUSED = re.compile(r"^vision_tower\.vision_model\.(post_layernorm|head)\.")
"""Tensors of a tower after the states that LLaVA takes: the norm and the head of its pooled vector."""
LAYER = re.compile(r"^vision_tower\.vision_model\.encoder\.layers\.(\d+)\.")


def read_llava(values: Json, where: str) -> VLMConfig:
    """The config of a whole LLaVA, all rows of its vocabulary counted as pre-trained.

    Raises: CheckpointError or SettingsError naming `where` and the key.
    """
    refuse_others(PROJECTOR, values, where)
    text = {"model_type": "llama"} | group_of(values, "text_config", where)
    key = "image_token_id" if "image_token_index" not in values else "image_token_index"
    tied = True if values.get("tie_word_embeddings") else None  # else the decoder's own word counts, as upstream
    language = read_decoder(text, f"{where}: text_config", tied)
    return VLMConfig(
        vision=_read_tower(values, where),
        connector=MLPConfig(),
        language=LanguageConfig.parse(language.plain() | {"logit_cap": None}),  # its class caps no scores
        extra_vocabulary=0,
        image_token=whole_number(values, key, where, default=32000, least=0),
    )


def _read_tower(values: Json, where: str) -> VisionConfig:
    given = group_of(values, "vision_config", where) or TOWER_OF_LLAVA
    kind, here = given.get("model_type", "clip_vision_model"), f"{where}: vision_config"
    if kind not in TOWERS:
        raise CheckpointError(f"{here}: model_type is {quoted(kind, 60)}; known towers are {', '.join(TOWERS)}")
    strategy, needed = values.get("vision_feature_select_strategy", "default"), STRATEGY[TOWERS[kind]]
    if strategy != needed:
        raise CheckpointError(
            f"{where}: vision_feature_select_strategy is {quoted(strategy, 60)}; of a {kind} lorgnette takes the states"
            f" of patches, all of them and no class token, which is {needed}"
        )
    vision = read_vision(given, here, TOWERS[kind])
    layer = values.get("vision_feature_layer", -2)
    layer = layer[0] if isinstance(layer, list) and len(layer) == 1 else layer
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 < abs(layer) <= vision.layers:
        raise CheckpointError(
            f"{where}: vision_feature_layer is {quoted(layer, 60)}; lorgnette takes the states after one of the"
            f" {vision.layers} layers, counted from 1, or back from -1"
        )
    left_out = vision.layers - layer % (vision.layers + 1)
    more = whole_number(group_of(values, "lorgnette", where), "skipped_layers", where, default=0, least=0)
    sizes = {"layers": vision.layers + more, "skipped_layers": left_out + more, "norm_after": False}
    return VisionConfig.parse(vision.plain() | sizes, here)


STRATEGY = {"clip": "default", "siglip": "full"}
"""By family of the tower: the value that takes all patches and nothing else. `default` leaves out the first state."""


def write_llava(config: VLMConfig) -> Json:
    """`config.json` of the whole model for transformers' Llava.

    Raises: CheckpointError if its class cannot represent a setting, with the setting and what it can.
    """
    vision, connector = config.vision, config.connector
    if not isinstance(vision, VisionConfig):
        raise CheckpointError(f"transformers' Llava has a ViT; it cannot hold vision.kind={vision.kind}")
    if not isinstance(connector, MLPConfig):
        raise CheckpointError(
            f"transformers' Llava has one slot for each patch, and an MLP between; it cannot hold"
            f" connector.kind={connector.kind}"
        )
    need("fusion", config.fusion, "autoregressive", "its only fusion there")
    need("connector.hidden", connector.hidden, None, "its MLP is as wide as the decoder")
    need("language.logit_cap", config.language.logit_cap, None, "LLaVA's own class caps no scores of the vocabulary")
    need("vision.norm_after", vision.norm_after, False, "LLaVA takes states of a tower before its last norm")
    family = tower_of(vision)
    tower = write_vision(vision, family, norm_after=False, skipped_layers=vision.skipped_layers)
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.image_token,
        "image_seq_length": int(connector.visual_tokens(vision.grid, vision.grid)),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": STRATEGY[family],
        "tie_word_embeddings": config.language.tied_embeddings,
        "vision_config": tower | {"model_type": f"{family}_vision_model", "num_hidden_layers": vision.layer_count},
        "text_config": write_decoder(config.language) | {"vocab_size": config.vocabulary},
    }


def tower_of(vision: VisionConfig) -> str:
    """The family of the tower that a vision encoder is written as."""
    return "siglip" if vision.class_token == "none" else "clip"


def check_llava_inputs(config: VLMConfig, processor: Processor) -> None:
    """Raises: CheckpointError for texts or images that a LlavaProcessor cannot make, with the setting."""
    images = processor.images
    side = config.vision.grid * config.vision.patch
    need("special.around_image", processor.special.around_image, "", "nothing is around the slots of an image")
    need("images.policy", images.policy, "square", "every image has the tower's own size")
    need("images.longest", images.longest, side, "every image has the tower's own size")
    need("images.split", images.split, False, "an image is one square")


def llava_rules(config: VLMConfig) -> list[Rule]:
    """The whole model, as files of `LlavaForConditionalGeneration` name it, and vLLM reads them."""
    return [
        *vision_rules(config.vision, "vision_tower.vision_model."),
        *connector_rules(config.connector, "multi_modal_projector."),
        *decoder_rules(config.language, "language_model.model.", HEAD),
    ]


def module_name(name: str) -> str:
    """The name of a module in a `LlavaForConditionalGeneration` of transformers 5, from that in a file."""
    name = name.replace("vision_tower.vision_model.", "vision_tower.")
    name = re.sub(r"^language_model\.(model\.|(?=lm_head))", "language_model.", name)
    return "lm_head" if name == "language_model.lm_head" else f"model.{name}"


def settle_names(weights: Weights, config: VLMConfig) -> None:
    """Bring tensors of any of the three forms of names to the one that is written, and leave out what is not run.

    transformers 5 saves the tower without `vision_model.`; models that it holds have `model.` before all, and the
    output table at the top. The layers of the tower after the states that are taken are not held here.
    Raises: CheckpointError for two tensors that would have one name.
    """
    for name in sorted(weights.names):
        settled = settled_name(name)
        layer = LAYER.match(settled)
        if UNUSED.match(settled) or (layer is not None and int(layer[1]) >= config.vision.layer_count):
            weights.forget(name)
        elif settled != name:
            if settled in weights.names:
                raise CheckpointError(
                    f"{weights.folder}: holds {quoted(name, 80)} and {quoted(settled, 80)}, which are one; keep either"
                )
            weights.rename(name, settled)


def settled_name(name: str) -> str:
    """The name of a tensor as it is written, from any of the three forms."""
    name = re.sub(r"^model\.(?=(vision_tower|multi_modal_projector|language_model)\.)", "", name)
    name = re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)
    name = re.sub(r"^language_model\.(?!(model|lm_head)\.)", "language_model.model.", name)
    return HEAD if name == "lm_head.weight" else name
