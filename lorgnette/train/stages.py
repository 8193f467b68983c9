"""Trainable parts of a stage: one word per part, `frozen`, `lora`, `dora` or `full`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lorgnette.errors import SettingsError
from lorgnette.model.adapted_layers import round_layers
from lorgnette.model.batch import Batch
from lorgnette.model.config import Mode, VLMConfig
from lorgnette.model.flops import ModelCost
from lorgnette.model.vlm import VLM
from lorgnette.run import PartConfig, StageConfig
from lorgnette.train.adapters.peft import ADAPTED, add_adapters

PARTS = ("vision", "connector", "fusion", "language", "extra_vocabulary")
"""Every parameter belongs to exactly one of these; none to `fusion` where visual tokens stand in the sequence."""
_BESIDE = {
    "norms": re.compile(r"norm\.(weight|bias)$"),
    "patches": re.compile(r"\.(patch_embedding|position_embedding)\.|\.class_(embedding|position)$"),
}
"""Names in `lora.unfreeze` -> end of the names of the parameters that are meant."""


@dataclass(frozen=True)
class TrainablePart:
    """Numbers of parameters and of trainable parameters of a part."""

    part: str
    mode: Mode
    parameters: int
    trainable: int


def part_config(stage: StageConfig, part: str) -> PartConfig:
    """The settings of a part in a stage. Rows of the extra vocabulary always train, at the language model's rate."""
    if part == "extra_vocabulary":
        return PartConfig(mode="full", lr=stage.language.lr, weight_decay=0.0)
    config: PartConfig = getattr(stage, part)
    return config


def named_parts(model: VLM) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(part, name, parameter) of every parameter, each once even where it is tied."""
    part_by_id = {id(parameter): part for part, parameters in model.parts().items() for parameter in parameters}
    for name, parameter in model.named_parameters():
        yield part_by_id[id(parameter)], name, parameter


def drops(stage: StageConfig) -> bool:
    """True if layers draw at random while they compute: adapters with dropout."""
    return stage.lora.dropout > 0 and any(part_config(stage, part).mode in ("lora", "dora") for part in ADAPTED)


def prepare_parts(model: VLM, stage: StageConfig, seed: int) -> list[TrainablePart]:
    """Freeze, unfreeze and adapt each part as the stage says. Returns the counts, for people to see before step 1.

    Raises: SettingsError if nothing would train.
    """
    for part in ADAPTED:
        mode = part_config(stage, part).mode
        if part in model.stacks() and part_config(stage, part).quantize:
            round_layers(getattr(model, part))
        if part in model.stacks() and mode in ("lora", "dora"):
            try:
                add_adapters(getattr(model, part), stage.lora, dora=mode == "dora", seed=seed)
            except SettingsError as error:
                raise SettingsError(f"stage {stage.name!r}, {part}: {error}") from None
    for part, name, parameter in named_parts(model):
        parameter.requires_grad_(_trains(stage, part, name))
    counts = count_parts(model, stage)
    if not any(count.trainable for count in counts if count.part != "extra_vocabulary"):
        raise SettingsError(f"stage {stage.name!r}: every part is frozen; set the mode of at least one to lora or full")
    return counts


def pack_flops(cost: ModelCost, stage: StageConfig, batch: Batch) -> int:
    """FLOPs of training on a pack in a stage, forward and backward."""
    modes = {part: part_config(stage, part).mode for part in cost.model.stacks()}
    lengths = batch.images, batch.documents, batch.supervised_tokens
    return cost.step_flops(*lengths, modes, stage.lora.rank, fusion=cost.fusion_flops(batch))


def check_parts(config: VLMConfig, stages: Iterable[StageConfig]) -> None:
    """Try the parts of stages on shapes alone. Raises: SettingsError for a stage that could not begin."""
    for stage in stages:
        with torch.device("meta"):
            prepare_parts(VLM(config), stage, seed=0)


def _trains(stage: StageConfig, part: str, name: str) -> bool:
    """True if a parameter trains in a stage: by the mode of its part, or beside the part's adapters."""
    mode = part_config(stage, part).mode
    if mode in ("full", "frozen"):
        return mode == "full"
    return ".lora_" in name or any(_BESIDE[kind].search(name) for kind in stage.lora.unfreeze)


def count_parts(model: VLM, stage: StageConfig) -> list[TrainablePart]:
    """Parameters and trainable parameters of each part, adapters included."""
    sizes = {part: [0, 0] for part in PARTS if part in model.parts()}
    for part, _, parameter in named_parts(model):
        sizes[part][0] += parameter.numel()
        sizes[part][1] += parameter.numel() if parameter.requires_grad else 0
    return [TrainablePart(part, part_config(stage, part).mode, *counts) for part, counts in sizes.items()]
