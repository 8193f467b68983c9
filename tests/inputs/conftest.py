"""Tokenizers, processors and conversations that the tests of the inputs share. Upstream's classes are the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, processors, trainers

from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import IDEFICS2_TEMPLATE
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig

CORPUS = [
    "User: What is in the image? Assistant: A red ball beside two blue boxes.",
    "User: How many dogs are there? Assistant: Three, and a cat.\nUser: Where? Assistant: On the left.",
    "The quick brown fox jumps over the lazy dog. Que montre cette image ? Une maison à côté d'une église.",
    "Read the table: 12 34 56.78 %, then answer in one word. System: be brief.",
] * 5


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer of ours."""
    return train_tokenizer(CORPUS, vocabulary=420)


@pytest.fixture(scope="session")
def small_images() -> ImageConfig:
    return ImageConfig(shortest=28, longest=70, grid=5)


@pytest.fixture(scope="session")
def processor(tokenizer, small_images) -> Processor:
    return Processor(tokenizer, small_images, connector=PerceiverConfig(latents=4))


def noise(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """An RGB image in which no two neighbouring pixels are alike."""
    pixels = np.random.default_rng((seed, width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def mistral_like(folder: Path, **settings: Any) -> None:
    """Write a tokenizer as Mistral's: SentencePiece-style BPE, a space put before each text, byte fallback."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    rows = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Training does not cross a line's first space otherwise, and words would be merged with each other.
    words = [word for line in CORPUS for word in line.split()]
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=420, special_tokens=rows, show_progress=False))
    values = json.loads(backend.to_str())
    values["added_tokens"] = values["added_tokens"][:3]  # the bytes are ordinary rows
    backend = tokenizers.Tokenizer.from_str(json.dumps(values))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | settings))


def old_checkpoint(folder: Path, **settings: Any) -> Path:
    """A folder as Idefics2's on the hub: `preprocessor_config.json`, and a Mistral-like tokenizer."""
    mistral_like(folder, **settings)
    pictures = {
        "do_image_splitting": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Idefics2ImageProcessor",
        "processor_class": "Idefics2Processor",
        "size": {"longest_edge": 70, "shortest_edge": 28},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "idefics2", "vision_config": {"patch_size": 14, "image_size": 70}})
    )
    (folder / "chat_template.jinja").write_text(IDEFICS2_TEMPLATE)
    return folder
