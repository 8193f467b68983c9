"""Memory of a server by its parts, from settings alone: what `lorgnette show --serve` prints.

The numbers are the engine's own: bytes of a slot, sizes of slabs and shapes of crops come from the functions it uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.image_inputs import image_row_bytes
from lorgnette.infer.engine.memory.kv_store import bytes_of_slot
from lorgnette.infer.engine.memory.slab_allocator import SlabAllocator
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import crops_of
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig

PROMPTS = (512, 2048, 8192)
"""Tokens of prompts for which the number of requests side by side is said."""


@dataclass(frozen=True)
class ServingMemory:
    """Bytes of a server of one model."""

    weights: int
    token: int
    """Keys and values of a token in all layers."""
    image_slots: int
    """Tokens that the largest square image takes in a prompt."""
    image_cached: int
    """Its visual tokens, kept for prompts that show it again."""
    image_kv: int
    """Its keys and values beside the sequence, with cross-attention; 0 without."""
    limits: EngineConfig

    @property
    def total(self) -> int:
        """Weights, and all that the engine may fill; passes of the model come on top."""
        images = self.limits.image_bytes + self.limits.pixel_bytes + (self.image_room if self.image_kv else 0)
        return self.weights + self.limits.kv_bytes + images

    @property
    def image_room(self) -> int:
        """Memory for keys and values of images beside the sequence."""
        return self.limits.image_kv_bytes or self.limits.kv_bytes // 4

    def request(self, prompt: int, answer: int) -> int:
        """Bytes that a request of so many tokens holds at admission."""
        return SlabAllocator(self._slots).size_for(self._room(prompt, answer)) * self.token

    def fitting(self, prompt: int, answer: int) -> int:
        """Requests of so many tokens that are answered side by side, no more than `max_running`."""
        slabs, count = SlabAllocator(self._slots), 0
        while count < self.limits.max_running and slabs.take(self._room(prompt, answer)) is not None:
            count += 1
        return count

    @property
    def _slots(self) -> int:
        return self.limits.kv_bytes // self.token

    def _room(self, prompt: int, answer: int) -> int:
        return prompt + min(answer, self.limits.answer_room) - 1


def serving_memory(
    config: VLMConfig, images: ImageConfig, dtype: torch.dtype, weight_bytes: int, limits: EngineConfig | None = None
) -> ServingMemory:
    """Memory of a server of a model whose weights take so many bytes, and which computes in a type."""
    crops = crops_of(images.crop_side, images.crop_side, images.split, images)
    visual = sum(int(config.connector.visual_tokens(crop.rows, crop.columns)) for crop in crops)
    fusion = config.fusion
    row = image_row_bytes(fusion, config.language, dtype) if isinstance(fusion, CrossAttentionConfig) else 0
    return ServingMemory(
        weights=weight_bytes,
        token=bytes_of_slot(config.language, dtype),
        image_slots=sum(crop.slot(config.slots).tokens for crop in crops),
        image_cached=visual * config.visual_width * dtype.itemsize,
        image_kv=visual * row,
        limits=limits or EngineConfig(),
    )


def lines(memory: ServingMemory, context: int) -> Iterator[tuple[str, str]]:
    """Label and value of each fact, for people. context: tokens that the model takes."""
    limits = memory.limits
    yield "weights", _mib(memory.weights)
    yield "keys and values of a token", f"{memory.token:,} bytes"
    yield (
        "largest image",
        f"{memory.image_slots:,} tokens, {_mib(memory.image_slots * memory.token)} of keys and values",
    )
    yield "its visual tokens in the cache", _mib(memory.image_cached)
    if memory.image_kv:
        room = f"; {memory.image_room // memory.image_kv:,} such images at once"
        yield "its keys and values for cross-attention", f"{_mib(memory.image_kv)}{room}"
    for prompt in (one for one in PROMPTS if one + 1 < context):
        answer = min(limits.answer_room, context - prompt)
        side_by_side = f"{memory.fitting(prompt, answer)} side by side"
        yield (
            f"requests of {prompt:,} + {answer} tokens",
            f"{_mib(memory.request(prompt, answer))} each, {side_by_side}",
        )
    yield "all memory of the server", f"{_mib(memory.total)}, and what a pass of the model needs"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
