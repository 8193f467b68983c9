"""Names of the tensors of vision encoders whose files do not follow SigLIP's: SigLIP 2 NaFlex, DINOv2, timm's EVA."""

from __future__ import annotations

from dataclasses import replace

from lorgnette.hub.weight_map import Pair, Rule, layer_rules, of_encoder, vision_rules
from lorgnette.model.configs.vision_config import VisionConfig

DINOV2_LAYER = (
    Pair("norm1", "attention_norm", bias=True),
    Pair("attention.attention.query", "attention.query", bias=True),
    Pair("attention.attention.key", "attention.key", bias=True),
    Pair("attention.attention.value", "attention.value", bias=True),
    Pair("attention.output.dense", "attention.output", bias=True),
    Pair("norm2", "mlp_norm", bias=True),
    Pair("mlp.fc1", "mlp.up", bias=True),
    Pair("mlp.fc2", "mlp.down", bias=True),
)
TIMM_LAYER = (
    Pair("norm1", "attention_norm", bias=True),
    Pair("attn.proj", "attention.output", bias=True),
    Pair("norm2", "mlp_norm", bias=True),
    Pair("mlp.fc1", "mlp.up", bias=True),
    Pair("mlp.fc2", "mlp.down", bias=True),
)


def siglip_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """SigLIP, CLIP."""
    return vision_rules(vision, prefix)


def naflex_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """SigLIP 2 NaFlex: a linear layer on patches that are flattened as row, column, channel."""
    patch = "vision.patch_embedding.weight"
    return [
        replace(rule, tail=(), channels=vision.channels) if rule.ours == (patch,) else rule
        for rule in vision_rules(vision, prefix)
    ]


def dinov2_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """DINOv2, but for the token that masks patches in its training."""
    kernel = vision.channels, vision.patch, vision.patch
    rules = [
        Rule("embeddings.cls_token", ("class_embedding",), leading=2),
        Rule("embeddings.position_embeddings", ("class_position", "position_embedding.weight"), leading=1),
        Rule("embeddings.patch_embeddings.projection.weight", ("patch_embedding.weight",), tail=kernel),
        Rule("embeddings.patch_embeddings.projection.bias", ("patch_embedding.bias",)),
        *layer_rules(DINOV2_LAYER, vision, "encoder.layer."),
        *(Pair("layernorm", "norm", bias=True).rules() if vision.norm_after else ()),
    ]
    return of_encoder(rules, prefix)


def timm_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """timm's Eva: queries, keys and values in one tensor, their biases (none for keys) apart."""
    kernel = vision.channels, vision.patch, vision.patch
    rules = [
        Rule("cls_token", ("class_embedding",), leading=2),
        Rule("pos_embed", ("class_position", "position_embedding.weight"), leading=1),
        Rule("patch_embed.proj.weight", ("patch_embedding.weight",), tail=kernel),
        Rule("patch_embed.proj.bias", ("patch_embedding.bias",)),
        *layer_rules(TIMM_LAYER, vision, "blocks."),
        *(Pair("norm", "norm", bias=True).rules() if vision.norm_after else ()),
    ]
    for layer in range(vision.layer_count):
        theirs, ours = f"blocks.{layer}.attn.", f"layers.{layer}.attention."
        fused = tuple(f"{ours}{kind}.weight" for kind in ("query", "key", "value"))
        rules += [
            Rule(f"{theirs}qkv.weight", fused),
            Rule(f"{theirs}q_bias", (f"{ours}query.bias",)),
            Rule(f"{theirs}v_bias", (f"{ours}value.bias",)),
        ]
    return of_encoder(rules, prefix)
