"""Inputs that the model reads of the images of prompts: visual tokens in the sequence, or keys and values beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorgnette.errors import PromptTooLong, SettingsError
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.memory.decoded_images import DecodedImages
from lorgnette.infer.engine.memory.image_kv import CropRange, ImageKV, ImageKVPool, PassImages
from lorgnette.infer.engine.prompt import Prompt
from lorgnette.infer.image_cache import ImageFeatureCache, ImageRef
from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.sight import SeenBefore
from lorgnette.model.vlm import VLM

ImageState = Tensor | ImageKV
"""An image as the model reads it: its visual tokens (V,D), or its keys and values in all blocks."""


@dataclass(frozen=True, eq=False)
class PassPart:
    """The share of one document in a pass, and the images that have been encoded for it, by number."""

    prompt: Prompt
    start: int
    stop: int
    states: dict[int, ImageState]


@dataclass(frozen=True, eq=False)
class PassInputs:
    """Images of a pass, as the model takes them."""

    grids: tuple[Grid, ...]
    visual_VD: Tensor
    images: PassImages | None = None


class ImageInputs:
    """Visual tokens that take the places of their slots in the sequence. They are needed once, and cost no memory."""

    def __init__(self, model: VLM, image_cache: ImageFeatureCache, decoded: DecodedImages, most_bytes: int = 0) -> None:
        """most_bytes: memory for the images of running answers."""
        self.model, self.image_cache, self.most_bytes = model, image_cache, most_bytes
        self.decoded = decoded

    @property
    def used(self) -> int:
        """Bytes taken by the images of running answers."""
        return 0

    def check(self, prompt: Prompt, name: str) -> None:
        """Raises: PromptTooLong for a prompt whose images have no room in an empty engine."""

    def take(self, prompt: Prompt) -> bool:
        """Take room for the images of a prompt; False if there is not enough."""
        return True

    def take_again(self, keys: set[str]) -> None:
        """Let one more answer hold images that another one holds."""

    def give(self, keys: set[str]) -> None:
        """Take back the room of images that one answer needs no longer."""

    def patches(self, image: ImageRef) -> int:
        """Patches that must be encoded for an image."""
        return sum(rows * columns for rows, columns in self.image_cache.grids_of([image]))

    def has(self, image: ImageRef) -> bool:
        """Return whether an image can be had without its pixels. It counts as no use of it."""
        return self.image_cache.has(image)

    def is_ready(self, image: ImageRef) -> bool:
        """Return whether an image can be had, or encoded, without waiting for its pixels."""
        return self.decoded.has(image) or self.has(image)

    def undecoded(self, images: Iterable[ImageRef]) -> list[ImageRef]:
        """Those of these images that are not ready."""
        return [one for one in images if not self.is_ready(one)]

    def find(self, image: ImageRef) -> ImageState | None:
        """An image that was encoded before, if it is still kept."""
        return self.image_cache.find(image)

    def encode(self, images: Sequence[ImageRef]) -> Sequence[ImageState]:
        """Encode different images in one pass. Raises: ImageError naming the image that cannot be read."""
        return self._visual_tokens(images)

    def _visual_tokens(self, images: Sequence[ImageRef]) -> list[Tensor]:
        made = self.image_cache.encode(images, self.decoded.take)
        self.decoded.encoded(images)
        return made

    def of_pass(self, parts: Sequence[PassPart]) -> PassInputs:
        """Images that a pass reads, its documents in their order."""
        visual = [self.model.no_visual_tokens()]
        for part in parts:
            for number, first, last in part.prompt.images_within(part.start, part.stop):
                state = part.states[number]
                assert isinstance(state, Tensor)
                visual.append(state[first:last])
        return PassInputs((), torch.cat(visual))


class CrossAttentionInputs(ImageInputs):
    """Keys and values of images for cross-attention blocks, needed for as long as an answer sees the image."""

    def __init__(
        self,
        model: VLM,
        image_cache: ImageFeatureCache,
        decoded: DecodedImages,
        fusion: CrossAttentionConfig,
        most_bytes: int,
    ) -> None:
        super().__init__(model, image_cache, decoded, most_bytes)
        self.pool = ImageKVPool(most_bytes, image_row_bytes(fusion, model.config.language, model.dtype))

    @property
    def used(self) -> int:
        return self.pool.used

    def check(self, prompt: Prompt, name: str) -> None:
        needed = self.pool.bytes_of(self._rows(prompt))
        if needed > self.most_bytes:
            raise PromptTooLong(
                f"{name}: the keys and values of its images take {needed:,} bytes, and the engine has"
                f" {self.most_bytes:,} for them; show fewer images, or raise image_kv_bytes"
            )

    def take(self, prompt: Prompt) -> bool:
        return self.pool.take(self._rows(prompt))

    def take_again(self, keys: set[str]) -> None:
        self.pool.take_again(keys)

    def give(self, keys: set[str]) -> None:
        self.pool.give(keys)

    def _rows(self, prompt: Prompt) -> dict[str, int]:
        """Visual tokens of each different image of a prompt, by its key."""
        return {image.key: self._crops(image).total for image in prompt.images}

    def _crops(self, image: ImageRef) -> SequenceLengths:
        return self.model.connector.visual_tokens(self.image_cache.grids_of([image]))

    def patches(self, image: ImageRef) -> int:
        return 0 if self.image_cache.has(image) else super().patches(image)

    def has(self, image: ImageRef) -> bool:
        return self.pool.find(image) is not None or super().has(image)

    def find(self, image: ImageRef) -> ImageKV | None:
        found = self.pool.find(image)
        if found is not None:
            self.image_cache.hits += 1
        return found

    def encode(self, images: Sequence[ImageRef]) -> list[ImageKV]:
        found = [self.image_cache.find(image) for image in images]
        new = iter(self._visual_tokens([one for one, kept in zip(images, found, strict=True) if kept is None]))
        return [
            self._project(image, next(new) if kept is None else kept) for image, kept in zip(images, found, strict=True)
        ]

    def _project(self, image: ImageRef, visual_VD: Tensor) -> ImageKV:
        made = ImageKV(self.model.fusion.keys_values(visual_VD), self._crops(image), self.image_cache.grids_of([image]))
        self.pool.put(image, made)
        return made

    def of_pass(self, parts: Sequence[PassPart]) -> PassInputs:
        before = [_ranges(part, part.prompt.images_seen(part.start)) for part in parts]
        shown = [one for part in parts for one in _ranges(part, part.prompt.images_within(part.start, part.stop))]
        seen = SeenBefore(
            SequenceLengths(tuple(sum(one.tokens for one in ranges) for ranges in before)),
            tuple(part.prompt.slot_before(part.start) for part in parts),
        )
        grids = tuple(grid for one in shown for grid in one.grids)
        images = PassImages((*(one for ranges in before for one in ranges), *shown), seen)
        return PassInputs(grids, self.model.no_visual_tokens(), images)


def image_row_bytes(fusion: CrossAttentionConfig, language: LanguageConfig, dtype: torch.dtype) -> int:
    """Memory of the keys and values of a visual token in all blocks of cross-attention."""
    return 2 * fusion.blocks(language.layers) * fusion.kv_width(language) * dtype.itemsize


def _ranges(part: PassPart, images: Sequence[tuple[int, int, int]]) -> list[CropRange]:
    found = []
    for number, first, last in images:
        state = part.states[number]
        assert isinstance(state, ImageKV)
        found.append(CropRange(state, first, last))
    return found


def image_inputs(model: VLM, image_cache: ImageFeatureCache, config: EngineConfig) -> ImageInputs:
    """Inputs that the model's fusion reads of images. Raises: SettingsError for memory that it has no use for."""
    fusion, decoded = model.config.fusion, DecodedImages(image_cache, config.pixel_bytes)
    if isinstance(fusion, CrossAttentionConfig):
        return CrossAttentionInputs(model, image_cache, decoded, fusion, config.image_kv_bytes or config.kv_bytes // 4)
    if config.image_kv_bytes is not None:
        raise SettingsError("image_kv_bytes: this model has no cross-attention that it is for; leave it out")
    return ImageInputs(model, image_cache, decoded)
