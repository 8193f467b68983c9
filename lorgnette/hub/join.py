"""A new vision-language model from two pre-trained backbones in transformers format, with a connector to be trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import BUFFERS, Weights, check_tensors, import_tensors
from lorgnette.hub.decoders.decoder_folder import open_decoder
from lorgnette.hub.encoders.encoder_families import EncoderFamily, find_family, image_settings, images_of
from lorgnette.hub.keys import check_tokenizer
from lorgnette.hub.load import assign, check_layers, empty_model, first_extra_row, untie_if_different
from lorgnette.hub.source import find_folder
from lorgnette.hub.weight_map import Rule, decoder_rules
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.generation_rules import GenerationRules, read_generation_rules
from lorgnette.inputs.preprocessor import normalisation
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import ConnectorConfig, idefics2_connector
from lorgnette.model.configs.fusion_config import FusionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.configs.vision_config import STATES_TAKEN, VisionConfig
from lorgnette.model.initialise import initialise
from lorgnette.model.language import Decoder
from lorgnette.model.ops.position_tables import resized_slowly
from lorgnette.model.vision import build_encoder
from lorgnette.model.vlm import VLM

NOT_VISION = rf"^text_model\.|^logit_|^(vision_model\.)?head\.|^(visual|text)_projection\.|{BUFFERS.pattern}"
"""Tensors beside the encoder: a text model, and the head that pools an image to one vector."""


@dataclass(frozen=True)
class VisionBackbone:
    """A published vision encoder, whole or its vision model alone: `encoders/` lists the families."""

    family: EncoderFamily
    config: VisionConfig
    weights: Weights
    pixels: Mapping[str, Any]
    """Settings of its image processor."""

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> VisionBackbone:
        """source: a folder, or `owner/name` on the hub, `@revision` after it or given. Nothing is allocated yet.

        Raises: CheckpointError if it is of no family that is read, or its settings and the headers of its weights
        disagree.
        """
        folder = find_folder(source, revision)
        family, inner = find_family(folder)
        config = family.read(inner, str(folder / family.file))
        try:
            pixels = image_settings(folder, family, inner)
            mean, std = normalisation(pixels, config.channels)
        except ValueError as error:
            raise CheckpointError(f"{folder}: its image settings cannot be understood ({error})") from None
        config = VisionConfig.parse(config.plain() | {"mean": mean, "std": std}, str(folder))
        weights = Weights(folder, re.compile(f"{NOT_VISION}|{family.ignored.pattern}"))
        opened = cls(family, config, weights, pixels)
        check_layers(weights, config.layers)
        weights.strip_prefix(rule.theirs for prefix in family.prefixes for rule in opened.rules(prefix))
        shapes = shapes_of(opened.whole)
        check_tensors(weights, {rule.theirs: rule for rule in opened.rules(opened.prefix)}, shapes, 0)
        return opened

    @property
    def whole(self) -> VisionConfig:
        """The settings with all that the file holds: the last norm and every layer."""
        return VisionConfig.parse(self.config.plain() | {"norm_after": True, "skipped_layers": 0})

    @property
    def prefix(self) -> str:
        """Prefix of the stored names."""
        there = (one for one in self.family.prefixes if any(name.startswith(one) for name in self.weights.names))
        return next(there, "")

    def rules(self, prefix: str) -> list[Rule]:
        """By the stored names: how all tensors of the file become ours."""
        return self.family.rules(self.whole, prefix)

    def joined(self, chosen: VisionConfig | None, grid: int) -> VisionConfig:
        """The settings of the encoder within a model. chosen: those given of `STATES_TAKEN` take the place of its own.

        Raises: CheckpointError for a class token that the file has and the settings deny, or the other way round.
        """
        values = {
            key: getattr(chosen, key) for key in STATES_TAKEN if chosen is not None and key in chosen.model_fields_set
        }
        has, wanted = self.config.class_token, values.get("class_token", self.config.class_token)
        if (has == "none") != (wanted == "none"):
            said = "none" if has == "none" else "kept or dropped"
            raise CheckpointError(
                f"{self.weights.folder}: vision.class_token is {wanted}, but of this {self.family.name} it is {said}"
            )
        joined = VisionConfig.parse(self.config.plain() | values)
        return VisionConfig.parse(joined.plain() | {"grid": self.config.grid if joined.interpolates else grid})

    def check(self, wanted: VisionConfig) -> None:
        """Raises: CheckpointError if settings of an encoder are not this one's, but for grid and states."""
        is_ours = isinstance(wanted, VisionConfig)
        stored = self.joined(VisionConfig.parse(wanted.plain()), wanted.grid) if is_ours else self.config
        _agree("vision", wanted, stored, self.weights.folder)

    def give_to(self, model: VLM, dtype: torch.dtype | None = None) -> None:
        """Replace the model's vision weights. The position table is resized to the model's own grid.

        dtype: of the weights; None keeps each as it is stored.
        Raises: CheckpointError if the two differ in any other setting, or tensors are missing, unknown or mis-shaped.
        """
        wanted = model.config.vision
        self.check(wanted)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        table = "vision.position_embedding.weight"
        shapes[table] = torch.Size((self.config.grid**2, wanted.width))
        rules = self.family.rules(VisionConfig.parse(wanted.plain() | {"grid": self.config.grid}), self.prefix)
        left = {rule.theirs for rule in self.rules(self.prefix)} - {rule.theirs for rule in rules}
        for name in left & self.weights.names:
            self.weights.forget(name)
        tensors = import_tensors(self.weights, rules, shapes)
        if wanted.grid != self.config.grid:
            rule = "bicubic_antialias" if self.family.antialias else "bicubic"
            tensors[table] = resized_slowly(tensors[table], (wanted.grid, wanted.grid), rule)
        assign(model, tensors, dtype=dtype)


@dataclass(frozen=True)
class LanguageBackbone:
    """A decoder of the Llama family in transformers format. `config` counts every stored row of its embedding."""

    config: LanguageConfig
    weights: Weights

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> LanguageBackbone:
        """source: a folder, or `owner/name` on the hub, `@revision` after it or given. Nothing is allocated yet.

        Raises: CheckpointError if its family is not known here, or its settings and its weights' headers disagree.
        """
        folder = find_folder(source, revision)
        config, weights = open_decoder(folder)
        check_tokenizer(folder)
        check_layers(weights, config.layers)
        weights.strip_prefix(rule.theirs for prefix in ("", "model.") for rule in decoder_rules(config, prefix))
        tied = config.tied_embeddings and untie_if_different(weights, f"{_prefix(weights)}embed_tokens.weight")
        config = LanguageConfig.parse(config.plain() | {"tied_embeddings": tied})
        rules = {rule.theirs: rule for rule in decoder_rules(config, _prefix(weights))}
        check_tensors(weights, rules, shapes_of(config), config.vocabulary)
        return cls(config, weights)

    def check(self, wanted: LanguageConfig) -> None:
        """Raises: CheckpointError if settings of a decoder are not this one's but for the rows of the vocabulary."""
        stored = LanguageConfig.parse(self.config.plain() | {"vocabulary": wanted.vocabulary})
        _agree("language", wanted, stored, self.weights.folder)

    def give_to(self, model: VLM, dtype: torch.dtype | None = None) -> None:
        """Replace the model's decoder weights. Rows that the model has beyond the stored ones are the mean of those.

        dtype: of the weights; None keeps each as it is stored.
        Raises: CheckpointError if the two differ in a setting, or tensors are missing, unknown or mis-shaped.
        """
        wanted = model.config.language
        self.check(wanted)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
        rules = decoder_rules(wanted, _prefix(self.weights))
        assign(model, import_tensors(self.weights, rules, shapes, self.config.vocabulary), dtype=dtype)


def build(
    vision: str | Path,
    language: str | Path,
    *,
    connector: ConnectorConfig | None = None,
    fusion: FusionConfig = "autoregressive",
    states: VisionConfig | None = None,
    images: ImageConfig | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[VLM, Processor]:
    """Join a vision encoder and a decoder of the Llama family. Connector and fusion are drawn from `seed`.

    vision, language: folders in transformers format, or `owner/name` on the hub; OpenCLIP's, or timm's EVA. A table of
    positions for `bucket` is resized to the grid of `images`, SigLIP's by default to 70 x 70 (paper §3.2).
    states: settings that say which states are taken, those given of `STATES_TAKEN`. images: see `default_images`.
    Rows for the special tokens are added after the pre-trained table, as the mean of its rows.
    Raises: CheckpointError naming the folder and what is missing, unknown or not ours.
    """
    vision_backbone, language_backbone = VisionBackbone.open(vision), LanguageBackbone.open(language)
    tokenizer = Tokenizer.load(language_backbone.weights.folder, SpecialTokens())
    images = images or default_images(vision_backbone, states)
    joined = vision_backbone.joined(states, images.grid)
    config = joined_config(language_backbone, tokenizer, connector, joined, fusion)
    model = join(vision_backbone, language_backbone, config, seed, dtype)
    template, vision_config = Idefics2Template(tokenizer.special), config.vision
    rules = GenerationRules(end_tokens=read_generation_rules(language_backbone.weights.folder).end_tokens)
    normalisation = vision_config.mean, vision_config.std
    return model.eval(), Processor(tokenizer, images, config.slots, template, *normalisation, rules)


def join(
    vision_backbone: VisionBackbone,
    language_backbone: LanguageBackbone,
    config: VLMConfig,
    seed: int,
    dtype: torch.dtype,
) -> VLM:
    """The model of two backbones, its connector and fusion drawn from `seed`, all of `dtype`, in training mode.

    Raises: CheckpointError if a backbone does not fit the settings.
    """
    model = empty_model(config, vision_backbone.weights, language_backbone.weights)
    vision_backbone.give_to(model, dtype)
    language_backbone.give_to(model, dtype)
    fresh = nn.Module()  # new parts under their own names in the model, which their draws depend on
    fresh.connector, fresh.fusion = (part.to_empty(device="cpu") for part in (model.connector, model.fusion))
    initialise(fresh.to(dtype), seed)
    return model


def default_images(vision_backbone: VisionBackbone, chosen: VisionConfig | None = None) -> ImageConfig:
    """Images as the encoder's family is used: SigLIP on a grid of 70 x 70 patches, sides between 378 and 980 pixels for
    SO400M (paper §3.2); others as their own image processor sizes them. chosen: as of `VisionBackbone.joined`.
    """
    config = vision_backbone.joined(chosen, vision_backbone.config.grid)
    folder = vision_backbone.weights.folder
    try:
        return images_of(vision_backbone.family, config, vision_backbone.pixels)
    except ValueError as error:
        raise CheckpointError(f"{folder}: its image settings cannot be understood ({error})") from None


def joined_config(
    language_backbone: LanguageBackbone,
    tokenizer: Tokenizer,
    connector: ConnectorConfig | None,
    vision: VisionConfig,
    fusion: FusionConfig = "autoregressive",
) -> VLMConfig:
    """The settings of the whole. The pre-trained table ends where the special tokens begin."""
    stored = language_backbone.config.vocabulary
    rows = max(stored, tokenizer.vocabulary)
    table = min(stored, first_extra_row(rows, tokenizer))
    return VLMConfig(
        vision=vision,
        connector=connector or idefics2_connector(language_backbone.config),
        language=LanguageConfig.parse(language_backbone.config.plain() | {"vocabulary": table}),
        extra_vocabulary=rows - table,
        image_token=tokenizer.id(tokenizer.special.image),
        fusion=fusion,
    )


def shapes_of(config: VisionConfig | LanguageConfig) -> dict[str, torch.Size]:
    """The shape of each tensor of a backbone, under its name in the whole model."""
    with torch.device("meta"):
        whole = nn.Module()
        if isinstance(config, LanguageConfig):
            whole.language = Decoder(config, 0)
        else:
            whole.vision = build_encoder(config)
    return {name: tensor.shape for name, tensor in whole.named_parameters(remove_duplicate=False)}


def _prefix(weights: Weights) -> str:
    """Prefix of a decoder's tensor names: transformers saves it with its head, or bare."""
    return "model." if any(name.startswith("model.") for name in weights.names) else ""


def _agree(
    part: str, wanted: VisionConfig | LanguageConfig, stored: VisionConfig | LanguageConfig, folder: Path
) -> None:
    differences = [f"{key} {ours!r}, there {theirs!r}" for key, (ours, theirs) in wanted.diff(stored).items()]
    if differences:
        raise CheckpointError(
            f"{folder}: does not fit the model's settings, which say {'; '.join(differences)}; leave out model.{part},"
            f" whose sizes come with the weights, or give another init.{part}"
        )
