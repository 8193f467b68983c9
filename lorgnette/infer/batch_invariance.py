"""Does it change an answer how a prompt is computed? It must not: a score would depend on the batch.

Each prompt is computed by itself, and then in every other way: in a batch of prompts of its shape, packed with others,
from a cache; with images in one crop and in five. Parts are compared one by one, each given what the part
before it made of the prompt alone, so that a fault is found where it is and not in all that follows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorgnette.errors import DataError
from lorgnette.infer.generate import evaluating
from lorgnette.infer.image_cache import ImageFeatureCache, without_images
from lorgnette.inputs.image_io import open_image
from lorgnette.inputs.processor import Processor
from lorgnette.model.batch import Batch, SequenceLengths
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops.device import in_float64
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, ImageSource, Sample, Segment, Text, Turn

_TOLERANCE = 1e-4
"""Largest difference that counts as rounding, over the largest value (float32; sums in another order)."""
TAIL = 6
"""Tokens that are read from the cache, the last one by one."""
QUESTION = "Describe what you see: which things are there, how many of each, and where?"

WAYS = ("batch", "packed", "cached")
CHECKED_PARTS = ("vision", "connector", "language")
HINTS = {
    ("batch", "vision"): "images of one size in a batch see each other's patches",
    ("batch", "connector"): "latents of one image see patches of another of its size",
    ("batch", "language"): "documents of one length in a batch see each other, or positions run on",
    ("packed", "vision"): "images of unequal sizes in a pack see each other's patches, or patches lose their places",
    ("packed", "connector"): "latents of one image see patches of another",
    ("packed", "language"): "documents of unequal lengths in a pack see each other, or positions run on",
    ("cached", "connector"): "visual tokens kept by image are not those of the image",
    ("cached", "language"): "cached keys and values, or the positions after them, are not those of the whole document",
}
"""Likely cause of a difference, by way of computing and part of the model."""


@dataclass(frozen=True)
class Deviation:
    """Largest difference between a part computed in one way and the same part computed for each prompt alone."""

    way: str
    part: str
    crops: str
    """Form of the images: `one crop`, or `five crops`, or `tiles`."""
    largest: float
    relative: float
    """The largest difference over the largest value. Not a number where either side is not."""
    passed: bool

    def sentence(self) -> str:
        """The failure in one sentence; empty if it passed."""
        where = f"{self.way}, images in {self.crops}"
        amount = f"{self.part} differs by {self.largest:.2g}, {self.relative:.1g} of its largest value"
        return f"{where}: {amount}: {HINTS[self.way, self.part]}"


@dataclass(frozen=True)
class Diagnosis:
    """Findings, and the model and prompts they were made on."""

    findings: tuple[Deviation, ...]
    images: tuple[tuple[int, int], ...]
    """Width and height of the images that were shown."""
    tolerance: float

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def verdict(self) -> str:
        """Return whether the model is sound, and if not, what is wrong with it."""
        wrong = [finding.sentence() for finding in self.findings if not finding.passed]
        if not wrong:
            most = max((finding.relative for finding in self.findings), default=0.0)
            return f"Sound: the largest difference is {most:.1e} of the largest value; {self.tolerance:.0e} is allowed."
        return "Not sound. " + ". ".join(wrong) + "."

    def plain(self) -> dict[str, Any]:
        """As JSON has it; what is not a number is null."""
        findings = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.items()
            }
            for row in map(dataclasses.asdict, self.findings)
        ]
        found = {"passed": self.passed, "verdict": self.verdict(), "tolerance": self.tolerance}
        return found | {"images": [list(size) for size in self.images], "findings": findings}


@torch.no_grad()
def examine(
    model: VLM, processor: Processor, images: Sequence[ImageSource], *, tolerance: float = _TOLERANCE
) -> Diagnosis:
    """Compute prompts about `images` in every way and compare.

    Half of the first image is shown too, so that not all are of one shape. Best in float32: other types round more than
    `tolerance` allows. Raises: DataError if there are no images, ImageError for one that cannot be read.
    """
    if not images:
        raise DataError("nothing to look at; give at least one image")
    pictures = [open_image(image, f"image {number}") for number, image in enumerate(images, 1)]
    width, height = pictures[0].size
    pictures.append(pictures[0].crop((0, 0, max(1, width // 2), height)))
    prompts = list(_prompts(pictures))
    several = "tiles" if processor.images.policy == "tiles" else "five crops"
    with evaluating(model):
        findings = [
            Deviation(way, part, several if split else "one crop", *_compared(ours, alone, tolerance))
            for split in (False, True)
            for way, part, ours, alone in _pairs(model, processor, prompts, split)
        ]
    worst = {(one.way, one.part, one.crops): one for one in sorted(findings, key=_severity)}
    order = sorted(worst, key=lambda key: (key[2] != "one crop", WAYS.index(key[0]), CHECKED_PARTS.index(key[1])))
    return Diagnosis(tuple(worst[key] for key in order), tuple(picture.size for picture in pictures), tolerance)


def _severity(finding: Deviation) -> float:
    return math.inf if math.isnan(finding.relative) else finding.relative


def _prompts(pictures: Sequence[ImageSource]) -> Iterator[Sample]:
    """Conversations of unequal lengths: with no picture, with each, and with all."""
    shown = [[], *([picture] for picture in pictures), list(pictures)]
    for number, some in enumerate(shown):
        segments: list[Segment] = [Turn("user"), Text("Look. " * number), *map(Image, some), Text(QUESTION)]
        yield Sample(tuple(segments), {"name": f"prompt {number}"})


def _turned(prompt: Sample) -> Sample:
    """A prompt of the same shape with other pictures: upside down."""
    turned = (
        Image(open_image(segment.source).rotate(180)) if isinstance(segment, Image) else segment
        for segment in prompt.segments
    )
    return dataclasses.replace(prompt, segments=tuple(turned))


@dataclass(frozen=True)
class _Alone:
    """A prompt computed by itself: what all other ways are held to."""

    sample: Sample
    batch: Batch
    patches_PD: Tensor
    visual_VD: Tensor
    logits_TK: Tensor

    @classmethod
    def of(cls, model: VLM, processor: Processor, sample: Sample, split: bool) -> _Alone:
        batch = processor([sample], add_generation_prompt=True, split=split).to(model.device)
        none = torch.empty(0, model.config.vision.width, device=model.device)
        patches_PD = _seen(model, batch) if len(batch.images) else none
        visual_VD = model.connector(patches_PD, batch.grids) if len(batch.images) else model.no_visual_tokens()
        return cls(sample, batch, patches_PD, visual_VD, _logits(model, batch, visual_VD))


_Pair = tuple[str, str, Tensor, Tensor]
"""A way, a part, and what it gave there and for each prompt alone."""


def _pairs(model: VLM, processor: Processor, prompts: Sequence[Sample], split: bool) -> Iterator[_Pair]:
    alone = [_Alone.of(model, processor, prompt, split) for prompt in prompts]
    for one in alone:
        other = _Alone.of(model, processor, _turned(one.sample), split)
        yield from _together(model, processor, "batch", [one, other, one], split)
    yield from _together(model, processor, "packed", alone[::-1], split)
    yield from _kept(model, processor, alone, split)
    yield from _continued(model, alone)


def _together(model: VLM, processor: Processor, way: str, alone: Sequence[_Alone], split: bool) -> Iterator[_Pair]:
    """Several prompts in one batch, part by part."""
    samples = [one.sample for one in alone]
    batch = processor(samples, add_generation_prompt=True, split=split).to(model.device)
    patches_PD, visual_VD, logits_TK = (
        torch.cat([getattr(one, name) for one in alone]) for name in ("patches_PD", "visual_VD", "logits_TK")
    )
    if len(batch.images):
        yield way, "vision", _seen(model, batch), patches_PD
        yield way, "connector", model.connector(patches_PD, batch.grids), visual_VD
    yield way, "language", _logits(model, batch, visual_VD), logits_TK


def _kept(model: VLM, processor: Processor, alone: Sequence[_Alone], split: bool) -> Iterator[_Pair]:
    """Visual tokens asked for a second time."""
    image_cache, samples = ImageFeatureCache(model, processor, split=split), [one.sample for one in alone]
    image_cache.of(samples)
    yield "cached", "connector", image_cache.of(samples), torch.cat([one.visual_VD for one in alone])


def _continued(model: VLM, alone: Sequence[_Alone]) -> Iterator[_Pair]:
    """All but the last tokens into a cache; then half of these together, and the others one by one."""
    lengths, cache = [len(one.logits_TK) for one in alone], KVCache(model.config, reserve=TAIL)
    visual_VD, none = torch.cat([one.visual_VD for one in alone]), model.no_visual_tokens()
    _logits(model, _part(alone, [(0, length - TAIL) for length in lengths]), visual_VD, cache)
    for first, last in itertools.pairwise([-TAIL, *range(-TAIL // 2, 1)]):
        step = _part(alone, [(length + first, length + last) for length in lengths])
        expected = torch.cat([one.logits_TK[n + first : n + last] for one, n in zip(alone, lengths, strict=True)])
        yield "cached", "language", _logits(model, step, none, cache), expected


def _part(alone: Sequence[_Alone], ranges: Sequence[tuple[int, int]]) -> Batch:
    """Some tokens of each prompt as a batch whose visual tokens are at hand. All images are in its first part."""
    batches = [one.batch for one in alone]
    grids = tuple(grid for batch in batches for grid in batch.grids)
    tokens_T, targets_T, positions_T = (
        torch.cat([getattr(batch, name)[slice(*ends)] for batch, ends in zip(batches, ranges, strict=True)])
        for name in ("tokens_T", "targets_T", "positions_T")
    )
    image_tokens = torch.cat([batch.tokens_T[batch.visual_positions_V] for batch in batches])
    return dataclasses.replace(
        without_images(batches[0], grids if ranges[0][0] == 0 else ()),
        tokens_T=tokens_T,
        targets_T=targets_T,
        positions_T=positions_T,
        documents=SequenceLengths(tuple(last - first for first, last in ranges)),
        visual_positions_V=torch.isin(tokens_T, image_tokens).nonzero()[:, 0],
    )


def _seen(model: VLM, batch: Batch) -> Tensor:
    patches_PD: Tensor = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    return patches_PD


def _logits(model: VLM, batch: Batch, visual_VD: Tensor, cache: KVCache | None = None) -> Tensor:
    logits_TK = model(batch, cache=cache, visual_VD=visual_VD).logits
    assert logits_TK is not None
    return logits_TK


def _compared(ours: Tensor, alone: Tensor, tolerance: float) -> tuple[float, float, bool]:
    """The largest difference, the same over the largest value, and whether that is rounding."""
    if not alone.numel():
        return 0.0, 0.0, True
    ours, alone = in_float64(ours), in_float64(alone)
    largest = (ours - alone).abs().max().item()
    relative = largest / max(alone.abs().max().item(), 1e-30)
    return largest, relative, relative <= tolerance
