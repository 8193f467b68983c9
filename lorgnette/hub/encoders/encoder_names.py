"""Names of the tensors of vision encoders whose files do not follow SigLIP's: NaFlex, DINOv2, timm's EVA, OpenCLIP."""

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
OPEN_CLIP_LAYER = (
    Pair("ln_1", "attention_norm", bias=True),
    Pair("attn.out_proj", "attention.output", bias=True),
    Pair("ln_2", "mlp_norm", bias=True),
    Pair("mlp.c_fc", "mlp.up", bias=True),
    Pair("mlp.c_proj", "mlp.down", bias=True),
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
    first = ("embeddings.cls_token", "embeddings.position_embeddings", "embeddings.patch_embeddings.projection")
    norms = (Pair("layernorm", "norm", bias=True),)
    rules = [*_first_rules(vision, first), *layer_rules(DINOV2_LAYER, vision, "encoder.layer."), *_norms(vision, norms)]
    return of_encoder(rules, prefix)


def timm_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """timm's Eva: queries, keys and values in one tensor, their biases (none for keys) apart."""
    rules = [
        *_first_rules(vision, ("cls_token", "pos_embed", "patch_embed.proj")),
        *layer_rules(TIMM_LAYER, vision, "blocks."),
        *_norms(vision, (Pair("norm", "norm", bias=True),)),
    ]
    for layer in range(vision.layer_count):
        theirs, ours = f"blocks.{layer}.attn.", f"layers.{layer}.attention."
        rules += [
            _fused(f"{theirs}qkv.weight", ours, "weight"),
            Rule(f"{theirs}q_bias", (f"{ours}query.bias",)),
            Rule(f"{theirs}v_bias", (f"{ours}value.bias",)),
        ]
    return of_encoder(rules, prefix)


def open_clip_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """OpenCLIP's own ViT: as CLIP, queries, keys and values in one tensor, and so their biases."""
    names = ("class_embedding", "positional_embedding", "conv1")
    rules = [
        *_first_rules(vision, names, leading=0),
        *layer_rules(OPEN_CLIP_LAYER, vision, "transformer.resblocks."),
        *_norms(vision, (Pair("ln_pre", "pre_norm", bias=True), Pair("ln_post", "norm", bias=True))),
    ]
    for layer in range(vision.layer_count):
        theirs, ours = f"transformer.resblocks.{layer}.attn.in_proj_", f"layers.{layer}.attention."
        rules += [_fused(f"{theirs}{kind}", ours, kind) for kind in ("weight", "bias")]
    return of_encoder(rules, prefix)


def _first_rules(vision: VisionConfig, names: tuple[str, str, str], leading: int = 1) -> list[Rule]:
    """Class token, positions (the class token's first) and patches, by these names.

    leading: dimensions of one before a sequence of tokens there.
    """
    class_token, positions, patches = names
    kernel = vision.channels, vision.patch, vision.patch
    return [
        Rule(class_token, ("class_embedding",), leading=2 * leading),
        Rule(positions, ("class_position", "position_embedding.weight"), leading=leading),
        Rule(f"{patches}.weight", ("patch_embedding.weight",), tail=kernel),
        *([Rule(f"{patches}.bias", ("patch_embedding.bias",))] if vision.patch_bias else []),
    ]


def _norms(vision: VisionConfig, pairs: tuple[Pair, ...]) -> list[Rule]:
    """Norms before and after the layers, those that it has."""
    there = {"pre_norm": vision.norm_before, "norm": vision.norm_after}
    return [rule for pair in pairs if there[pair.ours] for rule in pair.rules()]


def _fused(theirs: str, ours: str, kind: str) -> Rule:
    """Weights or biases of queries, keys and values, whose rows stand end to end in one tensor."""
    return Rule(theirs, tuple(f"{ours}{name}.{kind}" for name in ("query", "key", "value")))
