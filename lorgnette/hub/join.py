"""A new vision-language model from two pre-trained backbones in transformers format, with a connector to be trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.errors import CheckpointError
from lorgnette.hub import keys
from lorgnette.hub.checkpoint import BUFFERS, Weights, check_tensors, import_tensors
from lorgnette.hub.config_map import read_vision
from lorgnette.hub.decoders.decoder_map import read_decoder
from lorgnette.hub.keys import check_keys, check_section, check_tokenizer
from lorgnette.hub.load import assign, check_layers, empty_model, first_extra_row, untie_if_different
from lorgnette.hub.source import find_folder
from lorgnette.hub.weight_map import Rule, decoder_rules, vision_rules
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.generation_rules import GenerationRules, read_generation_rules
from lorgnette.inputs.preprocessor import normalisation, read_image_settings
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template
from lorgnette.inputs.tokenizer import Tokenizer, read_json
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import ConnectorConfig, idefics2_connector
from lorgnette.model.configs.fusion_config import FusionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.initialise import initialise
from lorgnette.model.language import Decoder
from lorgnette.model.vision import build_encoder
from lorgnette.model.vlm import VLM

SHORTEST = 27
"""Patches along the shortest side of an image: SigLIP-SO400M's own 378 pixels (paper §3.2)."""
GRID = 70
"""Side of the position table that images of any shape are given."""
NOT_VISION = re.compile(rf"^text_model\.|^logit_|^(vision_model\.)?head\.|{BUFFERS.pattern}")
"""Tensors of a SigLIP beside the encoder: its text model, and the head that pools an image to one vector."""


@dataclass(frozen=True)
class VisionBackbone:
    """A SigLIP in transformers format, whole or its vision model alone."""

    config: VisionConfig
    weights: Weights

    @classmethod
    def open(cls, source: str | Path, revision: str | None = None) -> VisionBackbone:
        """source: a folder, or `owner/name` on the hub, `@revision` after it or given. Nothing is allocated yet.

        Raises: CheckpointError if it is not a SigLIP, or its settings and the headers of its weights disagree.
        """
        folder = find_folder(source, revision)
        file = folder / "config.json"
        values = read_json(file)
        kind = values.get("model_type")
        inner = values if kind == "siglip_vision_model" else values.get("vision_config") if kind == "siglip" else None
        if not isinstance(inner, dict):
            raise CheckpointError(f"{file}: model_type is {kind!r:.60}; as vision encoder lorgnette reads a siglip")
        check_keys(folder, keys.VISION if inner is values else keys.SIGLIP)
        check_section(keys.VISION, inner, str(file))
        config = read_vision(inner, str(file))
        try:
            mean, std = normalisation(read_image_settings(folder), config.channels)
        except ValueError as error:
            raise CheckpointError(f"{folder}: its image settings cannot be understood ({error})") from None
        config = VisionConfig.parse(config.plain() | {"mean": mean, "std": std}, str(folder))
        weights = Weights(folder, NOT_VISION)
        check_layers(weights, config.layers)
        weights.strip_prefix(rule.theirs for prefix in ("", "vision_model.") for rule in vision_rules(config, prefix))
        opened = cls(config, weights)
        check_tensors(weights, opened.rules(), shapes_of(config), 0)
        return opened

    def rules(self) -> dict[str, Rule]:
        """By the stored names: how the tensors become ours."""
        prefix = "vision_model." if any(name.startswith("vision_model.") for name in self.weights.names) else ""
        return {rule.theirs: rule for rule in vision_rules(self.config, prefix)}

    def give_to(self, model: VLM, dtype: torch.dtype | None = None) -> None:
        """Replace the model's vision weights. The position table is interpolated to the model's own grid.

        dtype: of the weights; None keeps each as it is stored.
        Raises: CheckpointError if the two differ in any other setting, or tensors are missing, unknown or mis-shaped.
        """
        wanted = model.config.vision
        _agree(wanted, VisionConfig.parse(self.config.plain() | {"grid": wanted.grid}), self.weights.folder)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        table = "vision.position_embedding.weight"
        shapes[table] = torch.Size((self.config.grid**2, wanted.width))
        tensors = import_tensors(self.weights, self.rules().values(), shapes)
        tensors[table] = resize_positions(tensors[table], self.config.grid, wanted.grid)
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
        check_keys(folder, keys.TEXT)
        check_tokenizer(folder)
        config, weights = read_decoder(read_json(folder / "config.json"), str(folder / "config.json")), Weights(folder)
        check_layers(weights, config.layers)
        weights.strip_prefix(rule.theirs for prefix in ("", "model.") for rule in decoder_rules(config, prefix))
        tied = config.tied_embeddings and untie_if_different(weights, f"{_prefix(weights)}embed_tokens.weight")
        config = LanguageConfig.parse(config.plain() | {"tied_embeddings": tied})
        rules = {rule.theirs: rule for rule in decoder_rules(config, _prefix(weights))}
        check_tensors(weights, rules, shapes_of(config), config.vocabulary)
        return cls(config, weights)

    def give_to(self, model: VLM, dtype: torch.dtype | None = None) -> None:
        """Replace the model's decoder weights. Rows that the model has beyond the stored ones are the mean of those.

        dtype: of the weights; None keeps each as it is stored.
        Raises: CheckpointError if the two differ in a setting, or tensors are missing, unknown or mis-shaped.
        """
        wanted = model.config.language
        stored = LanguageConfig.parse(self.config.plain() | {"vocabulary": wanted.vocabulary})
        _agree(wanted, stored, self.weights.folder)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
        rules = decoder_rules(wanted, _prefix(self.weights))
        assign(model, import_tensors(self.weights, rules, shapes, self.config.vocabulary), dtype=dtype)


def build(
    vision: str | Path,
    language: str | Path,
    *,
    connector: ConnectorConfig | None = None,
    fusion: FusionConfig = "autoregressive",
    images: ImageConfig | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[VLM, Processor]:
    """Join a SigLIP and a decoder of the Llama family. Connector and fusion are drawn from `seed`.

    vision, language: folders in transformers format, or `owner/name` on the hub. The position table is interpolated to
    the grid of `images`, by default 70 x 70: sides between 378 and 980 pixels, as the paper's §3.2.
    Rows for the special tokens are added after the pre-trained table, as the mean of its rows.
    Raises: CheckpointError naming the folder and what is missing, unknown or not ours.
    """
    vision_backbone, language_backbone = VisionBackbone.open(vision), LanguageBackbone.open(language)
    tokenizer = Tokenizer.load(language_backbone.weights.folder, SpecialTokens())
    images = images or default_images(vision_backbone)
    config = joined_config(vision_backbone, language_backbone, tokenizer, connector, images.grid, fusion)
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


def default_images(vision_backbone: VisionBackbone) -> ImageConfig:
    """Sizes of images by default, on a grid of 70 x 70 patches: sides between 378 and 980 pixels for SigLIP-SO400M."""
    patch = vision_backbone.config.patch
    return ImageConfig(patch=patch, grid=GRID, shortest=patch * SHORTEST, longest=patch * GRID)


def joined_config(
    vision_backbone: VisionBackbone,
    language_backbone: LanguageBackbone,
    tokenizer: Tokenizer,
    connector: ConnectorConfig | None,
    grid: int,
    fusion: FusionConfig = "autoregressive",
) -> VLMConfig:
    """The settings of the whole. The pre-trained table ends where the special tokens begin."""
    stored = language_backbone.config.vocabulary
    rows = max(stored, tokenizer.vocabulary)
    table = min(stored, first_extra_row(rows, tokenizer))
    return VLMConfig(
        vision=VisionConfig.parse(vision_backbone.config.plain() | {"grid": grid}),
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


def resize_positions(table: Tensor, side: int, new_side: int) -> Tensor:
    """A square table of positions (side**2, D) at another side, bicubic: places on an image keep their meaning."""
    if side == new_side:
        return table
    square = table.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    resized = F.interpolate(square, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def _prefix(weights: Weights) -> str:
    """Prefix of a decoder's tensor names: transformers saves it with its head, or bare."""
    return "model." if any(name.startswith("model.") for name in weights.names) else ""


def _agree(wanted: VisionConfig | LanguageConfig, stored: VisionConfig | LanguageConfig, folder: Path) -> None:
    differences = [f"{key} {ours!r}, there {theirs!r}" for key, (ours, theirs) in wanted.diff(stored).items()]
    if differences:
        raise CheckpointError(f"{folder}: does not fit the model's settings, which say {'; '.join(differences)}")
