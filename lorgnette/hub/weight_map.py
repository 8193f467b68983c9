"""Names of tensors in both directions: one table per family, read from left to right on import and back on export.

A rule is one tensor of transformers and the tensor of ours that holds the same numbers. Where ours are several, their
rows stand end to end in the one of transformers (the extra vocabulary after the pre-trained table; Phi-3's queries,
keys and values); where `tail` is given, its last dimensions are flat in ours (a convolution over patches is a linear
layer on flattened patches). Other families of vision encoders have their names in `encoders/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import (
    AverageConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MappingNetworkConfig,
    MLPConfig,
    PerceiverConfig,
    PixelShuffleConfig,
)
from lorgnette.model.configs.connector_settings import ConnectorPlugin, ConnectorSettings
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import EncoderPlugin, EncoderSettings, VisionConfig
from lorgnette.model.connectors import build_connector
from lorgnette.model.vision import build_encoder


@dataclass(frozen=True)
class Rule:
    theirs: str
    ours: tuple[str, ...]
    tail: tuple[int, ...] = ()
    is_vocabulary: bool = False
    """A table of tokens, which may have fewer rows in a file: those of tokens that are added here."""
    leading: int = 0
    """Dimensions of one that stand before ours there."""
    channels: int = 0
    """Channels of patches that are flattened as row, column, channel there; 0 where they are flattened as ours."""

    def their_shape(self, shapes: Mapping[str, torch.Size]) -> tuple[int, ...]:
        """The shape that transformers gives this tensor, from the shapes of ours."""
        first = shapes[self.ours[0]]
        rows = sum(shapes[name][0] for name in self.ours)
        return (*(1,) * self.leading, rows, *(self.tail or first[1:]))

    def to_ours(self, tensor: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Our tensors from transformers'. Views of it, except that rows after the first tensor's are copied."""
        tensor = tensor[(0,) * self.leading]
        tensor = tensor.flatten(1) if self.tail else tensor
        if self.channels:
            tensor = tensor.unflatten(1, (-1, self.channels)).transpose(1, 2).flatten(1)
        table, *extra = tensor.split([shapes[name][0] for name in self.ours])
        return dict(zip(self.ours, [table, *(rows.clone() for rows in extra)], strict=True))

    def to_theirs(self, ours: Mapping[str, Tensor]) -> Tensor:
        """transformers' tensor from ours: the same bits in another shape."""
        tensors = [ours[name].detach() for name in self.ours]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        if self.channels:
            tensor = tensor.unflatten(1, (self.channels, -1)).transpose(1, 2).flatten(1)
        tensor = tensor.unflatten(1, self.tail) if self.tail else tensor
        return tensor[(None,) * self.leading].contiguous()


@dataclass(frozen=True)
class Pair:
    """A line of a table: `weight` and, where `bias` says so, `bias` of one module under its two names."""

    theirs: str
    ours: str
    bias: bool = False

    def rules(self) -> Iterable[Rule]:
        for kind in ("weight", "bias") if self.bias else ("weight",):
            yield Rule(f"{self.theirs}.{kind}", (f"{self.ours}.{kind}",))


VISION_LAYER = (
    Pair("layer_norm1", "attention_norm", bias=True),
    Pair("self_attn.q_proj", "attention.query", bias=True),
    Pair("self_attn.k_proj", "attention.key", bias=True),
    Pair("self_attn.v_proj", "attention.value", bias=True),
    Pair("self_attn.out_proj", "attention.output", bias=True),
    Pair("layer_norm2", "mlp_norm", bias=True),
    Pair("mlp.fc1", "mlp.up", bias=True),
    Pair("mlp.fc2", "mlp.down", bias=True),
)
DOWN = Pair("mlp.down_proj", "mlp.down")
GATE_AND_UP = (Pair("mlp.gate_proj", "mlp.gate"), Pair("mlp.up_proj", "mlp.up"))
GATED_MLP = (*GATE_AND_UP, DOWN)
UNGATED_MLP = (Pair("mlp.up_proj", "mlp.up"), DOWN)
PERCEIVER_LAYER = (
    Pair("input_latents_norm", "latent_norm"),
    Pair("input_context_norm", "context_norm"),
    Pair("self_attn.q_proj", "attention.query"),
    Pair("self_attn.k_proj", "attention.key"),
    Pair("self_attn.v_proj", "attention.value"),
    Pair("self_attn.o_proj", "attention.output"),
    Pair("post_attention_layernorm", "mlp_norm"),
    *GATED_MLP,
)
IDEFICS1_PERCEIVER_LAYER = (
    Pair("0.latents_layer_norm", "latent_norm"),
    Pair("0.context_layer_norm", "context_norm"),
    Pair("0.q_proj", "attention.query"),
    Pair("0.k_proj", "attention.key"),
    Pair("0.v_proj", "attention.value"),
    Pair("0.output_proj", "attention.output"),
    Pair("1.ln", "mlp_norm"),
    Pair("1.fc", "mlp.up"),
    Pair("1.c_proj", "mlp.down"),
)
IDEFICS1_PERCEIVER_QK_NORM = (
    Pair("0.q_layer_norm", "attention.query_norm"),
    Pair("0.k_layer_norm", "attention.key_norm"),
)
DECODER_LAYER = (
    Pair("input_layernorm", "attention_norm"),
    Pair("self_attn.o_proj", "attention.output"),
    DOWN,
)
TWO_NORMS = (Pair("post_attention_layernorm", "mlp_norm"),)
FOUR_NORMS = (
    Pair("post_attention_layernorm", "attention_post_norm"),
    Pair("pre_feedforward_layernorm", "mlp_norm"),
    Pair("post_feedforward_layernorm", "mlp_post_norm"),
)
"""Norms of a layer beside the first. Of four, the second has the name that of two stands before the MLP."""
FUSED = (
    Rule(
        "self_attn.qkv_proj.weight",
        ("attention.query.weight", "attention.key.weight", "attention.value.weight"),
    ),
    Rule("mlp.gate_up_proj.weight", ("mlp.gate.weight", "mlp.up.weight")),
)
"""Phi-3's tensors that hold the rows of several of ours, by layer."""
GATED_BLOCK = (
    Pair("input_layernorm", "attention_norm"),
    Pair("cross_attn.q_proj", "attention.query"),
    Pair("cross_attn.k_proj", "attention.key"),
    Pair("cross_attn.v_proj", "attention.value"),
    Pair("cross_attn.o_proj", "attention.output"),
    Pair("post_attention_layernorm", "mlp_norm"),
)
BLOCK_QK_NORM = (
    Pair("cross_attn.q_layer_norm", "attention.query_norm"),
    Pair("cross_attn.k_layer_norm", "attention.key_norm"),
)
QK_NORM = (Pair("self_attn.q_norm", "attention.query_norm"), Pair("self_attn.k_norm", "attention.key_norm"))


def vision_rules(vision: EncoderSettings, prefix: str) -> list[Rule]:
    """A vision encoder, as transformers names one of its kind. prefix: stands before its names there."""
    return of_encoder(ENCODER_RULES[type(vision)](vision), prefix)


def of_encoder(rules: Iterable[Rule], prefix: str) -> list[Rule]:
    """Rules of a vision encoder, as those of a whole model. prefix: stands before its names there."""
    return [_within(rule, prefix, "vision.") for rule in rules]


def _vit_rules(vision: VisionConfig) -> list[Rule]:
    """A vision transformer as SigLIP's and CLIP's are named, alone or within another model.

    CLIP's table of positions begins with the class token's. The vectors of DINOv2 are named as there.
    """
    kernel = vision.channels, vision.patch, vision.patch
    patch = Rule("embeddings.patch_embedding.weight", ("patch_embedding.weight",), tail=kernel)
    positions = [*(["class_position"] if vision.class_token != "none" else ()), "position_embedding.weight"]
    rules = [patch, Rule("embeddings.position_embedding.weight", tuple(positions))]
    if vision.patch_bias:
        rules.append(Rule("embeddings.patch_embedding.bias", ("patch_embedding.bias",)))
    if vision.class_token != "none":
        rules.append(Rule("embeddings.class_embedding", ("class_embedding",)))
    norms = (("pre_layrnorm", "pre_norm", vision.norm_before), ("post_layernorm", "norm", vision.norm_after))
    pairs = [Pair(theirs, ours, bias=True) for theirs, ours, there in norms if there]
    return [*rules, *_all(pairs), *layer_rules(VISION_LAYER, vision, "encoder.layers.")]


def layer_rules(pairs: Iterable[Pair], vision: VisionConfig, prefix: str) -> list[Rule]:
    """The layers of a vision transformer: of the pairs, and of the vectors of its branches, those that it has."""
    pairs = [replace(one, bias=one.bias and (vision.key_bias or one.ours != "attention.key")) for one in pairs]
    rules = _layers(pairs, vision.layer_count, prefix)
    scales = (("layer_scale1.lambda1", "attention_scale"), ("layer_scale2.lambda1", "mlp_scale"))
    for layer in range(vision.layer_count if vision.layer_scale else 0):
        rules += [Rule(f"{prefix}{layer}.{theirs}", (f"layers.{layer}.{ours}",)) for theirs, ours in scales]
    return rules


ENCODER_RULES: dict[type[EncoderSettings], Callable[[Any], list[Rule]]] = {VisionConfig: _vit_rules}
"""The names of each kind of vision encoder."""


def connector_rules(connector: ConnectorSettings, prefix: str) -> list[Rule]:
    """A connector, as transformers names one of its kind."""
    return [_within(rule, prefix, "connector.") for rule in CONNECTOR_RULES[type(connector)](connector)]


def plugin_rules(part: torch.nn.Module, prefix: str, ours: str) -> list[Rule]:
    """The tensors of a plug-in's part, under the names that it gives them itself."""
    return [_within(Rule(name, (name,)), prefix, ours) for name, _ in part.named_parameters()]


def _perceiver_rules(perceiver: PerceiverConfig) -> list[Rule]:
    """Idefics2's connector: modality projection and perceiver resampler; with an ungated MLP under Idefics1's names."""
    if perceiver.width_of == "vision":
        pairs = []
    elif perceiver.projection_width is None:
        pairs = [Pair("modality_projection.proj", "projection")]
    else:
        pairs = [Pair(f"modality_projection.{kind}_proj", f"projection.{kind}") for kind in ("gate", "up", "down")]
    ungated = perceiver.mlp != "swiglu"
    layer, norms = (IDEFICS1_PERCEIVER_LAYER, IDEFICS1_PERCEIVER_QK_NORM) if ungated else (PERCEIVER_LAYER, QK_NORM)
    final = Pair(f"perceiver_resampler.{'layer_norm' if ungated else 'norm'}", "norm")
    inner = [*layer, *(norms if perceiver.qk_norm else ())]
    if perceiver.norm == "layer":
        final, inner = replace(final, bias=True), [replace(one, bias=one.ours.endswith("norm")) for one in inner]
    rules = [Rule("perceiver_resampler.latents", ("latents",)), *_all([*pairs, final])]
    return rules + _layers(inner, perceiver.depth, f"perceiver_resampler.{'blocks' if ungated else 'layers'}.")


def _projection_rules(connector: ConnectorSettings) -> list[Rule]:
    """Idefics3's connector, and any other that is one linear layer."""
    return [Rule("modality_projection.proj.weight", ("projection.weight",))]


def _mlp_rules(connector: MLPConfig) -> list[Rule]:
    """LLaVA's connector."""
    return _all([Pair("linear_1", "projection.up", bias=True), Pair("linear_2", "projection.down", bias=True)])


def _flat_linear_rules(connector: FlatLinearConfig) -> list[Rule]:
    return [*_projection_rules(connector), *_all([Pair("modality_projection.mixing", "mixing")])]


def _mapping_network_rules(connector: MappingNetworkConfig) -> list[Rule]:
    """A mapping network, its layers named as those of CLIP's and SigLIP's encoders."""
    ends = [Pair("mapping_network.input", "input", bias=True), Pair("mapping_network.output", "output", bias=True)]
    rules = [Rule("mapping_network.constants", ("constants",)), *_all(ends)]
    return rules + _layers(VISION_LAYER, connector.depth, "mapping_network.layers.")


CONNECTOR_RULES: dict[type[ConnectorSettings], Callable[[Any], list[Rule]]] = {
    PerceiverConfig: _perceiver_rules,
    LinearConfig: _projection_rules,
    MLPConfig: _mlp_rules,
    PixelShuffleConfig: _projection_rules,
    AverageConfig: _projection_rules,
    FlatLinearConfig: _flat_linear_rules,
    MappingNetworkConfig: _mapping_network_rules,
    IdentityConfig: lambda connector: [],
}
"""The names of each kind of connector."""


def fusion_rules(config: VLMConfig, prefix: str) -> list[Rule]:
    """The blocks of cross-attention, as transformers' Idefics names them; no rule where nothing is between layers."""
    fusion = config.fusion
    if not isinstance(fusion, CrossAttentionConfig):
        return []
    norm = fusion.norm == "layer"
    pairs = [replace(one, bias=norm and one.ours.endswith("norm")) for one in GATED_BLOCK]
    pairs += [*(GATED_MLP if fusion.mlp == "swiglu" else UNGATED_MLP), *(BLOCK_QK_NORM if fusion.qk_norm else ())]
    rules = _layers(pairs, fusion.blocks(config.language.layers), "gated_cross_attn_layers.")
    for block in range(fusion.blocks(config.language.layers)):
        for theirs, ours in (("alpha_cross_attn", "attention_gate"), ("alpha_dense", "mlp_gate")):
            rules.append(Rule(f"gated_cross_attn_layers.{block}.{theirs}", (f"layers.{block}.{ours}",)))
    return [_within(rule, prefix, "fusion.") for rule in rules]


def decoder_rules(language: LanguageConfig, prefix: str, head: str = "lm_head.weight") -> list[Rule]:
    """Any decoder of the Llama family. `head` is the full name of its output table in transformers."""
    projections = [
        Pair(f"self_attn.{kind[0]}_proj", f"attention.{kind}", bias=language.attention_bias)
        for kind in ("query", "key", "value")
    ]
    fused = language.family == "phi3"
    norms = [*(FOUR_NORMS if language.post_norms else TWO_NORMS), *(QK_NORM if language.qk_norm else ())]
    layer = (*DECODER_LAYER, *norms, *(() if fused else (*projections, *GATE_AND_UP)))
    words = Rule("embed_tokens.weight", ("embedding.table", "embedding.extra"), is_vocabulary=True)
    rules = [words, *_all([Pair("norm", "norm")])]
    rules += _layers(layer, language.layers, "layers.", FUSED if fused else ())
    rules = [_within(rule, prefix, "language.") for rule in rules]
    if not language.tied_embeddings:
        rules.append(Rule(head, ("language.head.table", "language.head.extra"), is_vocabulary=True))
    return rules


def idefics2_rules(config: VLMConfig) -> list[Rule]:
    """The whole model, as transformers' `Idefics2ForConditionalGeneration` names it, and `Idefics` what that lacks."""
    with torch.device("meta"):
        if isinstance(config.vision, EncoderPlugin):
            vision = plugin_rules(build_encoder(config.vision), "model.vision_model.", "vision.")
        else:
            vision = vision_rules(config.vision, "model.vision_model.")
        if isinstance(config.connector, ConnectorPlugin):
            made = build_connector(config.connector, config.vision.width, config.language.width)
            connector = plugin_rules(made, "model.connector.", "connector.")
        else:
            connector = connector_rules(config.connector, "model.connector.")
    fusion = fusion_rules(config, "model.")
    return [*vision, *connector, *fusion, *decoder_rules(config.language, "model.text_model.")]


def _all(pairs: Iterable[Pair]) -> list[Rule]:
    return [rule for pair in pairs for rule in pair.rules()]


def _layers(pairs: Iterable[Pair], layers: int, prefix: str, more: Iterable[Rule] = ()) -> list[Rule]:
    rules = [*_all(pairs), *more]
    return [_within(rule, f"{prefix}{layer}.", f"layers.{layer}.") for layer in range(layers) for rule in rules]


def _within(rule: Rule, theirs: str, ours: str) -> Rule:
    return replace(rule, theirs=theirs + rule.theirs, ours=tuple(ours + name for name in rule.ours))
