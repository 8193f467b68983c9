"""Forms in which transformers keeps a whole model: a row for each, read on import and written by export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import Weights
from lorgnette.hub.config_map import read_idefics2, write_idefics2
from lorgnette.hub.decoders.setting_rows import Json
from lorgnette.hub.formats.llava import (
    HEAD,
    STRATEGY,
    TABLE,
    check_llava_inputs,
    llava_rules,
    read_llava,
    settle_names,
    tower_of,
    write_llava,
)
from lorgnette.hub.weight_map import Rule, idefics2_rules
from lorgnette.inputs.processor import Processor
from lorgnette.model.config import VLMConfig
from lorgnette.untrusted import quoted


@dataclass(frozen=True)
class Format:
    """One form: its settings, its names, and what its processor can make."""

    name: str
    """`model_type` of its config.json, and the word after `export --format`."""
    read: Callable[[Json, str], VLMConfig]
    write: Callable[[VLMConfig], Json]
    """`config.json`. Raises: CheckpointError for a setting that it cannot represent."""
    rules: Callable[[VLMConfig], list[Rule]]
    check_inputs: Callable[[VLMConfig, Processor], None]
    """Raises: CheckpointError for texts or images that its processor cannot make."""
    save_processor: Callable[[VLMConfig, Processor, Path], None]
    settle: Callable[[Weights, VLMConfig], None] = lambda weights, config: None
    """Bring the names of a file to those of the rules."""
    table: str = "model.text_model.embed_tokens.weight"
    head: str = "lm_head.weight"


def _check_idefics2_inputs(config: VLMConfig, processor: Processor) -> None:
    if processor.images.policy == "naflex" or processor.images.crop_from is not None:
        raise CheckpointError(
            "images are sized as transformers' Idefics2 cannot (images.policy naflex, or images.crop_from); save keeps"
            " them in lorgnette's own form"
        )
    if not processor.special.around_image:
        raise CheckpointError(
            "special.around_image is empty, but transformers' Idefics2 puts a token around images; name one, or export"
            " with --format llava"
        )


def _save_idefics2_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
    processor.save(folder)


def _save_llava_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
    processor.save(folder, llava=STRATEGY[tower_of(config.vision)])


IDEFICS2 = Format(
    "idefics2", read_idefics2, write_idefics2, idefics2_rules, _check_idefics2_inputs, _save_idefics2_processor
)
LLAVA = Format(
    "llava",
    read_llava,
    write_llava,
    llava_rules,
    check_llava_inputs,
    _save_llava_processor,
    settle_names,
    table=TABLE,
    head=HEAD,
)
MODEL_FORMATS = {one.name: one for one in (IDEFICS2, LLAVA)}
"""By `model_type`."""


def format_named(name: str) -> Format:
    """A form by its name. Raises: CheckpointError for an unknown one."""
    if name not in MODEL_FORMATS:
        raise CheckpointError(f"format {quoted(name, 40)}: lorgnette writes {' or '.join(MODEL_FORMATS)}")
    return MODEL_FORMATS[name]
