"""Tiny random models and batches, shared by the tests of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lorgnette.data.loader.training_batch import TrainingBatch
from lorgnette.model.batch import Batch, SequenceLengths
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.vlm import VLM

torch.set_num_threads(1)

Shape = tuple[int, int]
"""Rows and columns of patches of an image."""

LANGUAGE = {"vocabulary": 50, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "mlp_width": 40}
CONNECTOR = {"projection_width": 40, "latents": 8, "depth": 2, "heads": 4, "head_width": 8, "kv_heads": 2}
VISION = {"width": 24, "layers": 2, "heads": 2, "mlp_width": 36, "patch": 4, "grid": 8}


def tiny_config(
    language: dict | None = None, connector: dict | None = None, vision: dict | None = None, **whole: object
) -> VLMConfig:
    """A model of a few thousand parameters; each argument overrides settings of its part."""
    return VLMConfig(
        vision=VisionConfig(**VISION | (vision or {})),
        connector=connector if connector and "kind" in connector else PerceiverConfig(**CONNECTOR | (connector or {})),
        language=LanguageConfig(**LANGUAGE | (language or {})),
        **{"image_token": 51} | whole,
    )


def tiny_model(config: VLMConfig, seed: int = 0) -> VLM:
    """All weights random: norms and biases too, so that none of them hides behind its ones or zeros."""
    model = VLM(config).initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def positions_of(shape: Shape, grid: int) -> Tensor:
    """Rows of the position table, spread evenly over the grid."""
    rows, columns = (torch.arange(n) * grid // n for n in shape)
    return (rows[:, None] * grid + columns).flatten()


def make_batch(
    config: VLMConfig,
    documents: Sequence[Sequence[Shape]],
    *,
    text: int = 5,
    seed: int = 0,
    positions: Callable[[Shape, int], Tensor] = positions_of,
) -> Batch:
    """One document per list of image shapes: text, then each image between fake tokens, with text after it.

    Everything about a document depends on `seed` and its place alone, so that batches of one can be compared.
    """
    parts = [_document(config, shapes, text + index, seed * 1000 + index) for index, shapes in enumerate(documents)]
    tokens_T = torch.cat([tokens for tokens, _ in parts])
    lengths = tuple(len(tokens) for tokens, _ in parts)
    targets_T = torch.cat([torch.cat([tokens[1:], torch.tensor([-100])]) for tokens, _ in parts])
    targets_T[targets_T == config.image_token] = -100
    shapes = [shape for document in documents for shape in document]
    nothing = torch.empty(0, dtype=torch.int64)
    return TrainingBatch(
        tokens_T=tokens_T,
        targets_T=targets_T,
        positions_T=torch.cat([torch.arange(length) for length in lengths]),
        documents=SequenceLengths(lengths),
        patches_PC=torch.cat([patches for _, patches in parts]),
        patch_positions_P=torch.cat([nothing, *(positions(shape, config.vision.grid) for shape in shapes)]),
        grids=tuple(shapes),
        visual_positions_V=(tokens_T == config.image_token).nonzero()[:, 0],
        names=tuple(f"document {index}" for index in range(len(parts))),
    )


def _document(config: VLMConfig, shapes: Sequence[Shape], text: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words = lambda count: torch.randint(0, config.language.vocabulary, (count,), generator=generator)  # noqa: E731
    fake = torch.tensor([config.language.vocabulary])
    pieces = [words(text)]
    for rows, columns in shapes:
        slots = torch.full((config.slots.visual_tokens(rows, columns),), config.image_token)
        pieces += [fake, slots, fake, words(1 + (rows + columns) % 4)]
    patches = sum(rows * columns for rows, columns in shapes)
    pixels = torch.randint(0, 256, (patches, config.vision.patch_width), generator=generator, dtype=torch.uint8)
    return torch.cat(pieces), pixels


@pytest.fixture
def tiny() -> type:
    """The makers above as one object: `tiny.config`, `tiny.model`, `tiny.batch`."""

    class Tiny:
        config = staticmethod(tiny_config)
        model = staticmethod(tiny_model)
        batch = staticmethod(make_batch)

    return Tiny
