"""A prompt as the engine computes it: token ids, and the image behind each visual token.

With cross-attention an image, or a crop of one, has one slot in the text, which is its visual token here.

A request is checked here in full. What is too long is refused before any image is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from lorgnette.errors import DataError
from lorgnette.infer.engine.request import Request, SamplingParams
from lorgnette.infer.generate import check_length, longest_answer
from lorgnette.infer.image_cache import ImageFeatureCache, ImageRef
from lorgnette.infer.sampling import with_rules
from lorgnette.inputs.image import least_slots
from lorgnette.inputs.image_io import image_bytes
from lorgnette.inputs.render import prompt_ending
from lorgnette.model.configs.fusion_config import CrossAttentionConfig, Sees
from lorgnette.model.sight import first_seen
from lorgnette.sample import Image, Sample


@dataclass(frozen=True, eq=False)
class Prompt:
    """Tokens of a prompt and its images. Visual tokens are numbered from 0 through all images."""

    tokens: tuple[int, ...]
    images: tuple[ImageRef, ...]
    places: tuple[int, ...]
    """Position in `tokens` of each visual token, ascending."""
    firsts: tuple[int, ...]
    """First visual token of each image, then the number of all."""
    params: SamplingParams
    """Of the request, with the checkpoint's settings where it gives none."""
    most: int
    """Tokens that an answer may have."""
    sees: Sees | None = None
    """Images that a token attends to through cross-attention; None where their visual tokens are in the sequence."""

    @property
    def room_needed(self) -> int:
        """Tokens whose keys and values an answer needs at most: those of its last token are never read."""
        return len(self.tokens) + self.most - 1

    def visual_range(self, start: int, stop: int) -> tuple[int, int]:
        """Visual tokens that stand among the tokens from `start` up to `stop`."""
        return bisect_left(self.places, start), bisect_left(self.places, stop)

    def images_within(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Images that have visual tokens among the tokens from `start` up to `stop`.

        Returns: for each, its number, and the range of its own visual tokens that stand there.
        """
        return self._images_of(*self.visual_range(start, stop))

    def images_seen(self, start: int) -> list[tuple[int, int, int]]:
        """Images shown before the token at `start` that it attends to through cross-attention.

        Returns: for each, its number, and the range of its slots that are seen.
        """
        if self.sees is None:
            return []
        shown = bisect_left(self.places, start)
        return self._images_of(first_seen(self.sees, self.places[:shown]), shown)

    def slot_before(self, start: int) -> int | None:
        """Position of the last slot before the token at `start`."""
        shown = bisect_left(self.places, start)
        return self.places[shown - 1] if shown else None

    def _images_of(self, low: int, high: int) -> list[tuple[int, int, int]]:
        """Images of the visual tokens from `low` up to `high`, with the range of each one's own."""
        if low >= high:
            return []
        spans = enumerate(zip(self.firsts[:-1], self.firsts[1:], strict=True))
        return [
            (number, max(low, first) - first, min(high, last) - first)
            for number, (first, last) in spans
            if max(low, first) < min(high, last)
        ]

    def start_of(self, image: int) -> int:
        """Index in `tokens` of the first visual token of an image."""
        return self.places[self.firsts[image]]

    def block_hash(self, before: bytes, tokens: list[int], start: int) -> bytes:
        """Hash of the block of tokens that begins at `start`, and of all before it.

        Two images of equal prompts differ in it: it holds what each visual token is a part of.
        """
        digest = hashlib.sha256(before + struct.pack(f"<{len(tokens)}q", *tokens))
        for number, first, last in self.images_within(start, start + len(tokens)):
            digest.update(self.images[number].key.encode() + struct.pack("<2q", first, last))
        return digest.digest()


def prepare(request: Request, image_cache: ImageFeatureCache) -> Prompt:
    """Check a request and write its prompt. It reads headers of images only.

    Raises: DataError naming the sample that is too long, or ImageError naming the image that cannot be read.
    """
    processor, config = image_cache.processor, image_cache.model.config
    language, fusion = config.language, config.fusion
    split = image_cache.split if request.split is None else request.split
    _check_least_length(request.sample, image_cache, split)
    sample = _with_contents(request.sample)
    images = image_cache.images(sample, split, request.tenant)
    slots = [image_cache.slots(image) for image in images]
    tokens_T = processor.render_text(sample, slots, prompt_ending(sample)).tokens_T
    params = with_rules(request.params, processor.generation)
    assert isinstance(params, SamplingParams)  # the rules keep the kind of settings
    most = longest_answer(language, processor, params, sample.name, len(tokens_T))
    beyond = [token for token in params.logit_bias if token >= config.vocabulary]
    if beyond:
        raise DataError(f"logit_bias: the vocabulary has no token {beyond[0]}; give ids below it")
    return Prompt(
        tokens=tuple(tokens_T.tolist()),
        images=tuple(images),
        places=tuple(np.flatnonzero(tokens_T == processor.image_token).tolist()),
        firsts=tuple(accumulate((sum(slot.tokens for slot in one) for one in slots), initial=0)),
        params=params,
        most=most,
        sees=fusion.sees if isinstance(fusion, CrossAttentionConfig) else None,
    )


def _check_least_length(sample: Sample, image_cache: ImageFeatureCache, split: bool) -> None:
    """Refuse a prompt that would be too long were all its images as small as can be. It touches no image."""
    if not sample.images:
        return
    processor = image_cache.processor
    slots = [least_slots(processor.images, processor.connector, split)] * len(sample.images)
    rendered = processor.render_text(sample, slots, prompt_ending(sample))
    check_length(image_cache.model.config.language, sample.name, len(rendered.tokens_T))


def _with_contents(sample: Sample) -> Sample:
    """The sample with the files of its images read: an image is known by its content, which may not change later."""
    segments = [
        Image(image_bytes(one.source, sample.name))
        if isinstance(one, Image) and isinstance(one.source, str | Path)
        else one
        for one in sample.segments
    ]
    return dataclasses.replace(sample, segments=tuple(segments))
