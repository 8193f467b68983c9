"""Visual tokens of images that were seen before. Few-shot evaluation shows the same examples again and again, and a
conversation the same pictures at every turn: each is decoded and encoded once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorgnette.errors import ImageError
from lorgnette.inputs.image import Crop, Patches, image_crops, image_patches
from lorgnette.inputs.image_io import decoded_bytes, local_path
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Ending, Rendered, prompt_ending
from lorgnette.inputs.tiles import Slot
from lorgnette.model.batch import Batch, Grid
from lorgnette.model.vlm import VLM
from lorgnette.sample import ImageSource, Sample

KEEP_BYTES = 2**30
"""Visual tokens kept, in bytes. 64 tokens of width 4096 are half a megabyte in bfloat16."""

MEMORY_OF_SIZES = 65_536
"""Images whose sizes in patches are remembered."""


@dataclass(frozen=True)
class ImageRef:
    """An image of a prompt by its content."""

    key: str
    """Names whose it is, if it is not everybody's, the content, and whether it is split into crops."""
    source: ImageSource
    name: str
    """Name of the image in messages."""
    split: bool


PixelsOf = Callable[[ImageRef], tuple[Patches, ...]]
"""Has all crops of an image as patches."""


class ImageFeatureCache:
    """Image feature cache: visual tokens by image, bounded in bytes (LRU), emptied when the weights change.

    split: as of `generate`: whether images are shown in crops.
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
        self._crops: OrderedDict[str, tuple[Crop, ...]] = OrderedDict()

    def prompts(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """Prompts as a batch without patches, and the visual tokens of their images: what a model answers from.

        Raises: ImageError naming the sample and image, DataError.
        """
        images = [self.images(sample) for sample in samples]  # once: each is read and hashed
        every = list(itertools.chain.from_iterable(images))
        visual_VD = self.visual_tokens(every)
        texts = [self.text_of(*one, prompt_ending(one[0])) for one in zip(samples, images, strict=True)]
        batch = self.processor.pack(texts).to(self.model.device)
        return dataclasses.replace(batch, grids=self.grids_of(every)), visual_VD

    def prompt(self, sample: Sample) -> Rendered:
        """The tokens from which a sample is answered, as `Processor.prompts` packs them, without its patches."""
        return self.text_of(sample, self.images(sample), prompt_ending(sample))

    def text_of(self, sample: Sample, images: Sequence[ImageRef], ending: Ending = "whole") -> Rendered:
        """The tokens of a sample as `Processor.render` writes them, without its patches.

        images: what `images` has of it, or of a sample with the same images.
        Raises: ImageError for an image that was not seen before and whose size cannot be read.
        """
        return self.processor.render_text(sample, [self.slots(image) for image in images], ending)

    def images(self, sample: Sample, split: bool | None = None, salt: str = "") -> list[ImageRef]:
        """The images of a sample, in order. split: whether they are shown in crops, if not as always here.

        salt: begins the keys, so that images are known again among requests of equal salts alone.
        """
        split = self.split if split is None else split
        first = f"{hashlib.sha256(salt.encode()).hexdigest()}/" if salt else ""
        return [
            ImageRef(f"{first}{_key(one.source)}/{5 if split else 1}", one.source, f"{sample.name}, image {at}", split)
            for at, one in enumerate(sample.images, 1)
        ]

    def slots(self, image: ImageRef) -> tuple[Slot, ...]:
        """Slots of each crop of an image in the text, from its size alone."""
        return tuple(crop.slot(self.processor.connector) for crop in self.crops(image))

    def grids_of(self, images: Sequence[ImageRef]) -> tuple[Grid, ...]:
        """Rows and columns of patches of all crops of the images: where `visual_tokens` has a run of them."""
        return tuple((crop.rows, crop.columns) for image in images for crop in self.crops(image))

    def crops(self, image: ImageRef) -> tuple[Crop, ...]:
        """Shape of each crop of an image, from its header if it was not seen before."""
        if image.key not in self._crops:
            self._remember(image.key, image_crops(image.source, self.processor.images, image.split, image.name))
        return self._crops[image.key]

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """The visual tokens of all images of the samples, end to end (V,D)."""
        return self.visual_tokens([image for sample in samples for image in self.images(sample)])

    @torch.no_grad()
    def visual_tokens(self, images: Sequence[ImageRef]) -> Tensor:
        """The visual tokens of images, end to end (V,D): those that are not kept are encoded together."""
        if not images:
            return self.model.no_visual_tokens()
        self.forget_if_changed()
        new: dict[str, ImageRef] = {}
        for image in images:
            if image.key not in self._kept:
                new.setdefault(image.key, image)
        self.hits, self.misses = self.hits + len(images) - len(new), self.misses + len(new)
        made = self._encode(list(new.values()))
        found = [made[image.key] if image.key in made else self._kept[image.key] for image in images]
        self._keep([image.key for image in images], made)
        return torch.cat(found)

    def find(self, image: ImageRef) -> Tensor | None:
        """The visual tokens of an image that was encoded before (V,D), if they are still kept."""
        found = self._kept.get(image.key)
        if found is not None:
            self.hits += 1
            self._kept.move_to_end(image.key)
        return found

    def has(self, image: ImageRef) -> bool:
        """Return whether `find` would find the visual tokens of an image. It counts as no use of them."""
        return image.key in self._kept

    @torch.no_grad()
    def encode(self, images: Sequence[ImageRef], pixels_of: PixelsOf | None = None) -> list[Tensor]:
        """The visual tokens of each of these different images (V,D), encoded together and kept.

        pixels_of: has the pixels of an image that were decoded before; `decode` if not given.
        Raises: ImageError naming the image that cannot be read.
        """
        made = self._encode(images, pixels_of)
        self.misses += len(images)
        self._keep([image.key for image in images], made)
        return list(made.values())

    def decode(self, image: ImageRef) -> tuple[Patches, ...]:
        """All crops of an image as patches, in any thread. Raises: ImageError naming the image."""
        return image_patches(image.source, self.processor.images, image.split, image.name)

    def clear(self) -> None:
        """Forget all visual tokens."""
        self._kept.clear()
        self.bytes = 0

    def _encode(self, images: Sequence[ImageRef], pixels_of: PixelsOf | None = None) -> dict[str, Tensor]:
        if not images:
            return {}
        rendered = [self._render(image, (pixels_of or self.decode)(image)) for image in images]
        batch = self.processor.pack(rendered).to(self.model.device)
        counts = self.model.connector.visual_tokens(batch.grids).lengths
        images_of = iter(counts)
        lengths = [sum(itertools.islice(images_of, len(one.images))) for one in rendered]
        made = self.model.encode_images(batch).split(lengths)
        # clones, so that forgetting one frees it
        return {image.key: part.clone() for image, part in zip(images, made, strict=True)}

    def _render(self, image: ImageRef, crops: tuple[Patches, ...]) -> Rendered:
        self._remember(image.key, tuple(patches.crop for patches in crops))
        counts = tuple(slot.tokens for slot in self.slots(image))
        tokens_T = np.full(sum(counts), self.processor.image_token)
        return Rendered(tokens_T, tokens_T < 0, crops, counts, image.name)

    def _remember(self, key: str, crops: tuple[Crop, ...]) -> None:
        self._crops[key] = crops
        if len(self._crops) > MEMORY_OF_SIZES:
            self._crops.popitem(last=False)

    def _keep(self, keys: Sequence[str], made: dict[str, Tensor]) -> None:
        self.bytes += sum(part.nbytes for key, part in made.items() if key not in self._kept)
        self._kept |= made
        for key in keys:
            self._kept.move_to_end(key)
        while self.bytes > self.keep_bytes and self._kept:
            self.bytes -= self._kept.popitem(last=False)[1].nbytes

    def forget_if_changed(self) -> None:
        """Forget visual tokens that other weights have made."""
        parts = (self.model.vision, self.model.connector)
        weights = [weight for part in parts for weight in part.parameters()]
        stamp = tuple((one.data_ptr(), 0 if one.is_inference() else one._version) for one in weights)
        if stamp != self._stamp:
            self.clear()
            self._stamp = stamp


def without_images(batch: Batch, grids: tuple[Grid, ...] = ()) -> Batch:
    """The batch for a forward pass that is given its visual tokens. grids: of the images that these are of."""
    return dataclasses.replace(
        batch, patches_PC=batch.patches_PC[:0], patch_positions_P=batch.patch_positions_P[:0], grids=grids
    )


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
