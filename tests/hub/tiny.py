"""A tiny whole model with its processor, and samples for it: shared by the tests of hub and infer."""

from __future__ import annotations

from functools import cache
from typing import Any

import PIL.Image
import torch

from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn

ROWS = 300
"""Rows of the tiny tokenizer, special tokens included."""
IMAGES = ImageConfig(shortest=28, longest=84, patch=14, grid=6)
WORDS = ["the cat sat on the mat; what colour is the cat?", "a red square over a blue circle", "User: Assistant:"]


@cache
def tiny_tokenizer() -> Tokenizer:
    return train_tokenizer(WORDS * 3, vocabulary=ROWS)


def tiny_config(**language: Any) -> VLMConfig:
    """A model that transformers can represent. language: settings of the decoder over the tiny ones."""
    sizes = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "mlp_width": 48}
    return VLMConfig(
        vision=VisionConfig(width=24, layers=2, heads=2, mlp_width=36, patch=14, grid=6),
        connector=PerceiverConfig(projection_width=48, latents=4, depth=2, heads=2, head_width=8, kv_heads=1),
        language=LanguageConfig(**{"vocabulary": ROWS - 3} | sizes | language),
        image_token=tiny_tokenizer().id("<image>"),
    )


def cross_config(connector: Any = None, **fusion: Any) -> VLMConfig:
    """As `tiny_config`, with open gates before both layers of the decoder. fusion: settings of cross-attention."""
    settings = {"kind": "cross_attention", "every": 1, "gate_init": 0.7} | fusion
    config = tiny_config()
    return VLMConfig.parse(
        config.plain() | {"fusion": settings} | ({} if connector is None else {"connector": connector})
    )


def tiny_model(config: VLMConfig | None = None, seed: int = 0) -> VLM:
    """Random weights, with norms and biases that are not just ones and zeros."""
    model = VLM(config or tiny_config()).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def tiny_processor(config: VLMConfig | None = None) -> Processor:
    config = config or tiny_config()
    return Processor(tiny_tokenizer(), IMAGES, config.slots, mean=config.vision.mean, std=config.vision.std)


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return PIL.Image.fromarray(pixels.numpy())


def question(text: str, *sizes: tuple[int, int]) -> Sample:
    """A user's turn: images of the given widths and heights, then the text."""
    images = [Image(picture(*size, seed=number)) for number, size in enumerate(sizes)]
    return Sample((Turn("user"), *images, Text(text)))


SAMPLES = (
    question("what colour is the cat?", (40, 60)),
    question("the mat"),
    question("a red square over a blue circle: which is red?", (30, 90), (84, 84), (100, 20)),
    Sample((Text("the cat sat on"),)),
    Sample((Image(picture(50, 50)), Text(" is a"))),
)
"""Prompts of unequal lengths with one, no and three images, and documents without turns."""
