"""Costs of models and runs side by side, from their settings alone (paper, sections 3.1 to 3.3, Tables 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lorgnette.errors import SettingsError
from lorgnette.hub.describe import ImageCost, amount, image_cost
from lorgnette.hub.load import open_checkpoint
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.flops import ModelCost
from lorgnette.model.vlm import VLM
from lorgnette.output import say
from lorgnette.run import Run, StageConfig, find_recipe
from lorgnette.train.setup import resolve
from lorgnette.train.stages import prepare_parts

TEXT_TOKENS = (16, 64, 147, 315, 650, 2048)
"""Text tokens for one image. 147 is about the mean of the paper's first stage; see docs/decisions/0024."""
BYTES_EACH = 2
"""Bytes of a number in the caches: bfloat16."""


@dataclass(frozen=True)
class CostedModel:
    """A model that is compared, and the stages that train it: none for a checkpoint."""

    name: str
    config: VLMConfig
    images: ImageConfig
    stages: tuple[StageConfig, ...] = ()

    @classmethod
    def open(cls, source: str) -> CostedModel:
        """Open a recipe, given by name or path, or a checkpoint, whose weights are not read.

        Raises: SettingsError for a recipe's settings; CheckpointError or SettingsError for what is neither.
        """
        if (recipe := recipe_of(source)) is None:
            opened = open_checkpoint(source)
            return cls(Path(source).name, opened.config, opened.processor.images)
        run = resolve(Run.load(recipe))
        return cls(run.name, run.model, run.images, run.stages)

    @cached_property
    def cost(self) -> ModelCost:
        return ModelCost(self.config)

    @cached_property
    def image(self) -> ImageCost:
        """Cost of the largest square image."""
        return image_cost(self.cost, self.images.crop_side, self.images.most_tiles)

    @cached_property
    def slots(self) -> int:
        """Slots of that image in the text, those around it not counted."""
        along = int((self.image.patches // self.image.crops) ** 0.5)
        return int(self.config.slots.visual_tokens(along, along)) * self.image.crops

    @cached_property
    def trained(self) -> dict[str, int]:
        """Trained parameters by stage: adapters, unfrozen vectors and extra rows among them."""
        counts = {}
        for stage in self.stages:
            with torch.device("meta"):
                parts = prepare_parts(VLM(self.config), stage, seed=0)
            counts[stage.name] = sum(part.trainable for part in parts)
        return counts

    def sample_flops(self, text: int) -> int:
        """Forward pass of a document: the image, then so many tokens of text, all of them scored."""
        decoder = self.cost.document_flops(self.slots + text) + text * self.cost.head_flops()
        seeing = (self.slots + text) * self.cost.seeing_flops(self.image.visual_tokens)
        return self.image.flops + decoder + seeing + self.cost.seen_flops(self.image.visual_tokens)

    @property
    def image_cache_bytes(self) -> int:
        """Keys and values of one image: of its slots in every layer, and of its visual tokens in every block."""
        fusion, language, seen = self.config.fusion, self.config.language, 0
        if isinstance(fusion, CrossAttentionConfig):
            seen = 2 * fusion.blocks(language.layers) * self.image.visual_tokens * fusion.kv_width(language)
        return self.cost.cache_bytes(self.slots, BYTES_EACH) + seen * BYTES_EACH


def recipe_of(source: str) -> Path | None:
    """The recipe of that name or path; None for what can only be a checkpoint. Raises: SettingsError for neither."""
    try:
        return find_recipe(source)
    except SettingsError:
        if not Path(source).is_dir() and "/" not in source:
            raise
        return None


def print_costs(console: Console, choices: Sequence[CostedModel]) -> None:
    """Print a table of sizes and costs, a column for each choice, and the FLOPs of a sample over its length of text."""
    table = Table("", box=SIMPLE, title_justify="left")
    curve = Table("text tokens", title="FLOPs of a sample of one image, forward", title_justify="left", box=SIMPLE)
    for choice in choices:
        table.add_column(choice.name, justify="right", overflow="fold")
        curve.add_column(choice.name, justify="right", overflow="fold")
    for label, values in rows(choices):
        table.add_row(label, *values)
    for text in TEXT_TOKENS:
        curve.add_row(f"{text:,}", *sample_cells(choices, text))
    console.print(table)
    console.print(curve)
    if len(choices) > 1:
        say(console, f"In brackets: relative to {choices[0].name}. Caches are of bfloat16.", style="dim")


def rows(choices: Sequence[CostedModel]) -> list[tuple[str, list[str]]]:
    """Label and cells of each row of the table."""
    parts = list(dict.fromkeys(part for one in choices for part in one.cost.parameters))
    stages = list(dict.fromkeys(name for one in choices for name in one.trained))
    found = [(part, [_count(one.cost.parameters.get(part)) for one in choices]) for part in parts]
    found.append(("parameters", [_count(sum(one.cost.parameters.values())) for one in choices]))
    found += [(f"trained, {name}", [_count(one.trained.get(name)) for one in choices]) for name in stages]
    return [
        *found,
        ("image, pixels", [_pixels(one.image) for one in choices]),
        ("patches", [_count(one.image.patches) for one in choices]),
        ("visual tokens", [_count(one.image.visual_tokens) for one in choices]),
        ("slots in the text", [_count(one.slots) for one in choices]),
        ("FLOPs an image", [amount(one.image.flops, "FLOP") for one in choices]),
        ("FLOPs a token", [amount(_token_flops(one), "FLOP") for one in choices]),
        ("cache a token", [amount(one.cost.cache_bytes(1, BYTES_EACH), "B") for one in choices]),
        ("cache an image", [amount(one.image_cache_bytes, "B") for one in choices]),
    ]


def _pixels(image: ImageCost) -> str:
    crops = f"{image.crops} tiles of " if image.crops > 1 else ""
    return f"{crops}{image.side} x {image.side}"


def sample_cells(choices: Sequence[CostedModel], text: int) -> list[str]:
    """FLOPs of a sample with so much text for each choice, and in brackets relative to the first."""
    first, *others = (one.sample_flops(text) for one in choices)
    return [amount(first, "FLOP"), *(f"{amount(one, 'FLOP')} ({one / first:.2f})" for one in others)]


def _token_flops(choice: CostedModel) -> int:
    cost = choice.cost
    return cost.token_flops() + cost.head_flops() + cost.seeing_flops(choice.image.visual_tokens)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
