"""Visual tokens of images that were seen before. Few-shot evaluation shows the same examples again and again, and a
conversation the same pictures at every turn: each is decoded and encoded once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorgnette.errors import ImageError
from lorgnette.inputs.image import image_grids, image_patches
from lorgnette.inputs.image_io import decoded_bytes, local_path
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Ending, Rendered, prompt_ending
from lorgnette.model.batch import Batch
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, ImageSource, Sample

KEEP_BYTES = 2**30
"""Visual tokens kept, in bytes. 64 tokens of width 4096 are half a megabyte in bfloat16."""

Named = tuple[ImageSource, str]
"""An image, and what messages call it."""


class Latents:
    """Image feature cache: visual tokens by image, bounded in bytes (LRU), emptied when the weights change.

    split: as of `generate`: whether images are shown in five crops.
    """

    def __init__(
        self, model: VLM, processor: Processor, *, split: bool | None = None, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self.model, self.processor = model, processor
        self.split = processor.images.split if split is None else split
        self.keep_bytes = keep_bytes
        self.bytes = 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._stamp: tuple[tuple[int, int], ...] = ()
        self._slots: dict[str, tuple[int, ...]] = {}

    def prompts(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """Prompts as a batch without patches, and the visual tokens of their images: what a model answers from.

        Raises: ImageError naming the sample and image, DataError.
        """
        visual_VD = self.of(samples)
        return self.processor.pack([self.prompt(one) for one in samples]).to(self.model.device), visual_VD

    def prompt(self, sample: Sample) -> Rendered:
        """The tokens from which a sample is answered, as `Processor.prompts` packs them, without its patches."""
        return self.text_of(sample, prompt_ending(sample))

    def text_of(self, sample: Sample, ending: Ending = "whole") -> Rendered:
        """The tokens of a sample as `Processor.render` writes them, without its patches.

        Raises: ImageError for an image that was not seen before and whose size cannot be read.
        """
        slots = [self._slots_of(image.source, name) for image, name in _named(sample)]
        return self.processor.render_text(sample, slots, ending)

    def _slots_of(self, source: ImageSource, name: str) -> tuple[int, ...]:
        """Visual tokens of each crop of an image, from its size alone."""
        key = _key(source)
        if key not in self._slots:
            grids = image_grids(source, self.processor.images, self.split, name)
            self._slots[key] = tuple(self.processor.connector.visual_tokens(*grid) for grid in grids)
        return self._slots[key]

    @torch.no_grad()
    def of(self, samples: Sequence[Sample]) -> Tensor:
        """The visual tokens of all images of the samples, end to end (V,D)."""
        named = [(image.source, name) for sample in samples for image, name in _named(sample)]
        if not named:
            return self.model.connector.empty()
        self._forget_if_changed()
        keys = [_key(source) for source, _ in named]
        new = {key: one for key, one in zip(keys, named, strict=True) if key not in self._kept}
        self.hits, self.misses = self.hits + len(keys) - len(new), self.misses + len(new)
        made = dict(zip(new, self._encode(new), strict=True)) if new else {}
        found = [made[key] if key in made else self._kept[key] for key in keys]
        self._keep(keys, made)
        return torch.cat(found)

    def _encode(self, images: Mapping[str, Named]) -> list[Tensor]:
        """The visual tokens of each image, encoded together."""
        rendered = [self._render(source, name) for source, name in images.values()]
        self._slots |= {key: one.visual_tokens for key, one in zip(images, rendered, strict=True)}
        batch = self.processor.pack(rendered).to(self.model.device)
        made = self.model.encode_images(batch).split([len(one.tokens_T) for one in rendered])
        return [part.clone() for part in made]  # so that forgetting one frees it

    def _render(self, source: ImageSource, name: str) -> Rendered:
        crops = image_patches(source, self.processor.images, self.split, name)
        counts = tuple(self.processor.connector.visual_tokens(crop.rows, crop.columns) for crop in crops)
        tokens_T = np.full(sum(counts), self.processor.image_token)
        return Rendered(tokens_T, tokens_T < 0, crops, counts, name)

    def _keep(self, keys: Sequence[str], made: dict[str, Tensor]) -> None:
        self.bytes += sum(part.nbytes for part in made.values())
        self._kept |= made
        for key in keys:
            self._kept.move_to_end(key)
        while self.bytes > self.keep_bytes and self._kept:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes

    def _forget_if_changed(self) -> None:
        parts = (self.model.vision, self.model.connector)
        weights = [weight for part in parts for weight in part.parameters()]
        stamp = tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in weights)
        if stamp != self._stamp:
            self._kept.clear()
            self._stamp, self.bytes = stamp, 0


def without_images(batch: Batch) -> Batch:
    """The batch for a forward pass that is given its visual tokens."""
    return dataclasses.replace(
        batch, patches_PC=batch.patches_PC[:0], patch_positions_P=batch.patch_positions_P[:0], grids=()
    )


def _named(sample: Sample) -> list[tuple[Image, str]]:
    """The images of a sample, and what messages call each."""
    return [(image, f"{sample.name}, image {number}") for number, image in enumerate(sample.images, 1)]


def _key(source: ImageSource) -> str:
    """Names an image by its content; one behind a URL by the URL."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, str | Path):
        try:
            path = local_path(source)
            content = path.read_bytes() if path.is_file() else f"at {source}".encode()
        except (ImageError, OSError):  # too long for a path, or unreadable: whoever opens it says so
            content = f"at {source}".encode()
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(decoded_bytes(source)).hexdigest()
