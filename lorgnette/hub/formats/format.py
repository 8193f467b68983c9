"""Forms in which transformers keeps a whole model: a row for each, read on import and written by export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorgnette.errors import CheckpointError
from lorgnette.files import write_json
from lorgnette.hub.checkpoint import Weights
from lorgnette.hub.config_map import read_idefics2, write_idefics2
from lorgnette.hub.decoders.setting_rows import Json
from lorgnette.hub.formats.idefics1 import (
    IDEFICS1_TABLE,
    check_idefics1_inputs,
    idefics1_rules,
    read_idefics1,
    settle_idefics1,
    write_idefics1,
)
from lorgnette.hub.formats.idefics1_keys import IDEFICS1_SECTIONS
from lorgnette.hub.formats.idefics3 import (
    check_idefics3_inputs,
    read_idefics3,
    settle_idefics3,
    write_idefics3,
    zero_biases,
)
from lorgnette.hub.formats.idefics3_keys import IDEFICS3_SECTIONS
from lorgnette.hub.formats.llava import (
    HEAD,
    STRATEGY,
    TABLE,
    check_llava_inputs,
    llava_rules,
    module_name,
    read_llava,
    settle_names,
    settled_name,
    tower_of,
    write_llava,
)
from lorgnette.hub.keys import IDEFICS2_SECTIONS, LLAVA_SECTIONS, FormatSections
from lorgnette.hub.weight_map import Rule, idefics2_rules
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.processors.idefics1_files import idefics1_files
from lorgnette.inputs.processors.llava_files import llava_files
from lorgnette.model.config import VLMConfig
from lorgnette.untrusted import quoted


@dataclass(frozen=True)
class Format:
    """One form: its settings, its names, and what its processor can make."""

    name: str
    """`model_type` of its config.json."""
    read: Callable[[Json, str], VLMConfig]
    write: Callable[[VLMConfig], Json]
    """`config.json`. Raises: CheckpointError for a setting that it cannot represent."""
    rules: Callable[[VLMConfig], list[Rule]]
    check_inputs: Callable[[VLMConfig, Processor], None]
    """Raises: CheckpointError for texts or images that its processor cannot make."""
    save_processor: Callable[[VLMConfig, Processor, Path], None]
    settle: Callable[[Weights, VLMConfig], None] = lambda weights, config: None
    """Bring the names of a file to those of the rules."""
    settled: Callable[[str], str] = lambda name: name
    """From a name that its class gives a tensor, in a file or in memory, to that of the rules."""
    module: Callable[[str], str] = lambda name: name
    """From the name of a module in the rules to that in memory, which PEFT's adapters have."""
    model_class: str = "transformers.models.idefics2.modeling_idefics2.Idefics2ForConditionalGeneration"
    table: str = "model.text_model.embed_tokens.weight"
    head: str = "lm_head.weight"
    title: str = "Idefics2"
    sections: FormatSections = IDEFICS2_SECTIONS
    """Its keys: obeyed, refused, or without effect."""
    word: str = ""
    """The word after `export --format`, if it is not `name`."""
    grows: bool = True
    """A tokenizer may have more tokens than tables have rows. If not, rows after the pre-trained ones stand in tensors
    of their own, and the tokenizer says which token is the image's."""
    zeros: Callable[[VLMConfig], list[Rule]] = lambda config: []
    """Tensors that its class has and ours lacks, written as zeros."""


def _check_idefics2_inputs(config: VLMConfig, processor: Processor) -> None:
    if processor.images.policy in ("naflex", "tiles") or processor.images.crop_from is not None:
        raise CheckpointError(
            "images are sized as transformers' Idefics2 cannot (images.policy naflex or tiles, or images.crop_from);"
            " save keeps them in lorgnette's own form"
        )
    if not processor.special.around_image:
        raise CheckpointError(
            "special.around_image is empty, but transformers' Idefics2 puts a token around images; name one, or export"
            " with --format llava"
        )


def _save_idefics2_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
    processor.save(folder)


def _save_llava_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
    strategy = STRATEGY[tower_of(config.vision)]
    values = llava_files(processor.images, processor.special, processor.mean, processor.std, strategy)
    processor.save(folder, values, as_file=True)


def _save_idefics1_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
    processor.save(folder, idefics1_files(processor.images, processor.mean, processor.std))


def _idefics3(kind: str, title: str) -> Format:
    """Idefics3, or SmolVLM, whose names and settings are the same."""

    def save_processor(config: VLMConfig, processor: Processor, folder: Path) -> None:
        values = processor.tiled_files(kind)
        processor.save(folder, values, as_file=kind == "smolvlm")
        older = values["image_processor"] | {"processor_class": values["processor_class"]}
        write_json(folder / "preprocessor_config.json", older)  # which servers and transformers 4 read

    return Format(
        kind,
        read_idefics3,
        lambda config: write_idefics3(config, kind),
        idefics2_rules,
        lambda config, processor: check_idefics3_inputs(config, processor, kind),
        save_processor,
        settle_idefics3,
        title=title,
        sections=IDEFICS3_SECTIONS,
        zeros=zero_biases,
    )


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
    settled=settled_name,
    module=module_name,
    model_class="transformers.models.llava.modeling_llava.LlavaForConditionalGeneration",
    table=TABLE,
    head=HEAD,
    title="LLaVA-1.5",
    sections=LLAVA_SECTIONS,
)
IDEFICS3, SMOLVLM = _idefics3("idefics3", "Idefics3"), _idefics3("smolvlm", "SmolVLM")
IDEFICS1 = Format(
    "idefics",
    read_idefics1,
    write_idefics1,
    idefics1_rules,
    check_idefics1_inputs,
    _save_idefics1_processor,
    settle_idefics1,
    table=IDEFICS1_TABLE,
    title="Idefics1",
    sections=IDEFICS1_SECTIONS,
    word="idefics1",
    grows=False,
)
MODEL_FORMATS = {one.name: one for one in (IDEFICS2, IDEFICS1, IDEFICS3, SMOLVLM, LLAVA)}
"""By `model_type`."""


def adapted_format(config: VLMConfig, processor: Processor) -> Format:
    """The form of a model whose adapters are kept: LLaVA's or Idefics3's where it holds the model, else Idefics2's."""
    forms = (LLAVA, SMOLVLM if processor.video else IDEFICS3)
    return next((form for form in forms if _holds(form, config, processor)), IDEFICS2)


def _holds(form: Format, config: VLMConfig, processor: Processor) -> bool:
    """Return whether a model and its processor have this form."""
    try:
        form.write(config)
        form.check_inputs(config, processor)
    except CheckpointError:
        return False
    return True


def format_named(name: str) -> Format:
    """A form by its name. Raises: CheckpointError for an unknown one."""
    words = {one.word or one.name: one for one in MODEL_FORMATS.values()}
    if name not in words:
        raise CheckpointError(f"format {quoted(name, 40)}: lorgnette writes {', '.join(words)}")
    return words[name]
