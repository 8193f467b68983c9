"""The tables of keys know every key that transformers writes for these classes, in all versions from 4.40 on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig

from lorgnette.errors import CheckpointError
from lorgnette.hub import adapter, keys
from lorgnette.hub.decoders.decoder_folder import GEMMA3
from lorgnette.hub.load import load
from tests.hub.conftest import write_upstream
from tests.hub.tiny import tiny_config

WRITTEN = json.loads((Path(__file__).parent / "upstream_keys.json").read_text())
"""By section and range of versions: keys that transformers (and PEFT) write."""
SECTIONS = {
    "config": keys.WHOLE,
    "text_config": keys.TEXT,
    "vision_config": keys.VISION,
    "perceiver_config": keys.PERCEIVER,
    "siglip": keys.SIGLIP,
    "gemma3": GEMMA3,
    "generation_config": keys.GENERATION,
    "processor_config": keys.PROCESSOR,
    "image_processor": keys.IMAGES,
    "tokenizer_config": keys.WORDS,
    "special_tokens_map": keys.SPECIAL,
    "tokenizer": keys.TOKENIZER_JSON,
    "adapter_config": adapter.SETTINGS,
}
PACKAGE = Path(keys.__file__).parents[1]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_that_was_ever_written_has_its_place(section: str) -> None:
    for versions, names in WRITTEN[section].items():
        assert set(names) <= SECTIONS[section].known, f"{section} of {versions}"


def installed() -> dict[str, set[str]]:
    """Keys that the installed version writes."""
    values = {
        "config": [transformers.Idefics2Config()],
        "text_config": [transformers.LlamaConfig(), transformers.MistralConfig(), transformers.Qwen2Config()],
        "vision_config": [Idefics2VisionConfig(), transformers.SiglipVisionConfig()],
        "perceiver_config": [Idefics2PerceiverConfig()],
        "siglip": [transformers.SiglipConfig()],
        "generation_config": [transformers.GenerationConfig()],
        "image_processor": [transformers.Idefics2ImageProcessorPil(), transformers.SiglipImageProcessorPil()],
        "adapter_config": [peft.LoraConfig()],
    }
    values["text_config"] += [transformers.Qwen3Config(), transformers.SmolLM3Config()]
    values["text_config"] += [transformers.Phi3Config(), transformers.GemmaConfig(), transformers.Gemma2Config()]
    values["text_config"] += [transformers.Gemma3TextConfig()]
    values["gemma3"] = [transformers.Gemma3Config()]
    return {section: {key for one in given for key in one.to_dict()} for section, given in values.items()}


def test_the_installed_version_writes_no_other_key() -> None:
    found = installed()
    for section, names in found.items():
        assert names <= SECTIONS[section].known, section
        assert names <= {key for listed in WRITTEN[section].values() for key in listed}, f"{section}: extend the list"


def test_every_key_has_one_place() -> None:
    for name, section in SECTIONS.items():
        places = [*section.obeyed, *section.irrelevant, *section.refused, *section.said]
        assert len(places) == len(set(places)), name


def test_the_module_that_obeys_a_key_names_it() -> None:
    for name, section in SECTIONS.items():
        for key, module in section.obeyed.items():
            if module == keys.TOKENIZER or name == "tokenizer":  # the tokenizer's own library reads that file
                continue
            assert key in (PACKAGE / module).read_text(), f"{name}: {key} in {module}"


@pytest.mark.parametrize("section", ["config", "text_config", "vision_config", "perceiver_config"])
def test_keys_that_are_refused_are_named(copied: Path, section: str) -> None:
    file = copied / "config.json"
    good = json.loads(file.read_text())
    for key, unobeyed in keys.NOT_OURS.items():
        values = json.loads(json.dumps(good))
        here = values if section == "config" else values[section]
        for value, refused in ((unobeyed.neutral[0], False), (None, False), ({"bits": 4}, True)):
            here[key] = value
            file.write_text(json.dumps(values))
            if refused:
                with pytest.raises(CheckpointError, match=f"{key} is .*: {unobeyed.advice[:20]}"):
                    load(copied)
            else:
                load(copied)


def old_defaults() -> dict[str, Any]:
    """Keys of generation as transformers before 5 dumped them into each part of config.json."""
    return {key: unobeyed.neutral[0] for key, unobeyed in keys.OLD_CONFIG.items()}


def test_a_config_that_an_old_version_dumped_whole_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_upstream(tmp_path / "old", tiny_config(), dtype=torch.float32)
    values = json.loads((folder / "config.json").read_text())
    for part in (values, *(values[group] for group in keys.KEY_GROUPS)):
        part.update(
            old_defaults() | {"torch_dtype": "float32", "pruned_heads": {}, "is_decoder": False, "prefix": None}
        )
    (folder / "config.json").write_text(json.dumps(values))
    keys.warn_once.cache_clear()
    load(folder)
    assert not caplog.text
