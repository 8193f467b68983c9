"""Visual tokens of images that were seen before. Few-shot evaluation shows the same examples again and again, and a
conversation the same pictures at every turn: each is decoded and encoded once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lorgnette.errors import ImageError
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.image_io import decoded_bytes, local_path
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Rendered
from lorgnette.model.batch import Batch, Spans
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, ImageSource, Sample

PIXEL = b"P6 1 1 255\n\0\0\0"
"""One black pixel. It holds an image's place where only the text is wanted: every image is as many tokens."""
KEEP_BYTES = 2**30
"""Visual tokens kept, in bytes. 64 tokens of width 4096 are half a megabyte in bfloat16."""

Named = tuple[ImageSource, str]
"""An image, and what messages call it."""


class Latents:
    """Visual tokens by image; what was not used for longest is forgotten first. They are made anew if weights change.

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
        patch = processor.images.patch
        smallest = processor.images.override("policy=square", f"shortest={patch}", f"longest={patch}")
        self._blank = dataclasses.replace(processor, images=smallest)

    def prompts(self, samples: Sequence[Sample]) -> tuple[Batch, Tensor]:
        """Prompts as a batch without patches, and the visual tokens of their images: what a model answers from.

        Raises: ImageError naming the sample and image, DataError.
        """
        batch = self._blank.prompts([blank(one) for one in samples], split=self.split)
        return without_images(batch).to(self.model.device), self.of(samples)

    def written(self, sample: Sample) -> Rendered:
        """A sample whose images are blank (see `blank`), as `Processor.render` writes it: the same tokens."""
        return self._blank.render(sample, split=self.split)

    def prompt_tokens(self, sample: Sample) -> list[int]:
        """The tokens from which a sample whose images are blank is answered, as `prompts` packs them."""
        return self._blank.prompts([sample], split=self.split).tokens_T.tolist()

    @torch.no_grad()
    def of(self, samples: Sequence[Sample]) -> Tensor:
        """The visual tokens of all images of the samples, end to end (V,D)."""
        named = [
            (image.source, f"{sample.name}, image {number}")
            for sample in samples
            for number, image in enumerate(sample.images, 1)
        ]
        if not named:
            return self.model.connector.latents[:0]
        self._forget_if_changed()
        keys = [_key(source) for source, _ in named]
        new = {key: one for key, one in zip(keys, named, strict=True) if key not in self._kept}
        self.hits, self.misses = self.hits + len(keys) - len(new), self.misses + len(new)
        made = dict(zip(new, self._encode(list(new.values())), strict=True)) if new else {}
        found = [made[key] if key in made else self._kept[key] for key in keys]
        self._keep(keys, made)
        return torch.cat(found)

    def _encode(self, images: Sequence[Named]) -> list[Tensor]:
        """The visual tokens of each image, encoded together."""
        rendered = [self._render(source, name) for source, name in images]
        batch = self.processor.pack(rendered).to(self.model.device)
        made = self.model.encode_images(batch).split([len(one.tokens_T) for one in rendered])
        return [part.clone() for part in made]  # so that forgetting one frees it

    def _render(self, source: ImageSource, name: str) -> Rendered:
        crops = image_patches(source, self.processor.images, self.split, name)
        tokens_T = torch.full((len(crops) * self.processor.visual_tokens,), self.processor.image_token).numpy()
        return Rendered(tokens_T, tokens_T < 0, crops, name)

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


def blank(sample: Sample) -> Sample:
    """The sample with a pixel in the place of each image."""
    segments = (Image(PIXEL) if isinstance(segment, Image) else segment for segment in sample.segments)
    return dataclasses.replace(sample, segments=tuple(segments))


def without_images(batch: Batch) -> Batch:
    """The batch for a forward pass that is given its visual tokens."""
    return dataclasses.replace(
        batch, patches_PC=batch.patches_PC[:0], patch_positions_P=batch.patch_positions_P[:0], images=Spans(())
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
