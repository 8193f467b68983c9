"""Few-shot prompts: which solved examples stand before a question. Shots are Samples like all else.

Which ones depends on the seed and the question's name alone: not on the order of tasks or questions, the batch, or how
many ranks there are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorgnette.data.record import Refused
from lorgnette.errors import DataError, ImageError, SettingsError
from lorgnette.eval.image_checks import check_image, image_digest
from lorgnette.eval.models.base import Model, in_runs
from lorgnette.sample import Image, Sample, Segment, Text
from lorgnette.seeds import derive_seed

Choose = Literal["random", "rices", "text"]
"""At random; by likeness of the picture, the likest last (RICES, Yang et al. 2022); at random and without pictures,
which is what Flamingo calls zero-shot (Alayrac et al. 2022, with two shots)."""
POOL = 2048
"""Rows of the training split among which shots are chosen. It bounds what is read, looked at and kept."""
DIGITS = 5
"""Decimal places of a likeness. What differs by less, as it may between batches, is alike, and the order decides."""
LOOK = 64
"""Pictures looked at together."""


@dataclass
class FewShot:
    """Solved examples before each prompt. A document is continued after them; a conversation goes on after theirs.

    examples: the training split as Samples, answers included; source: what it is, for the record.
    instruction: stands before everything in a document.
    """

    examples: Sequence[Sample]
    count: int
    choose: Choose = "random"
    seed: int = 0
    pool: int = POOL
    source: str = ""
    instruction: str = ""
    encoder: Model | None = None
    """The model whose vision features retrieve shots: the measured one (Idefics2's vision encoder)."""
    separator: str = "\n"
    _read: dict[int, Sample | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.choose == "rices" and self.count and not (self.encoder and self.encoder.encodes_images):
            raise SettingsError("retrieving shots by likeness needs a model that shows its vision features; use random")

    def described(self) -> dict[str, Any]:
        """All that decides which examples are shown."""
        fields = ("count", "choose", "seed", "pool", "source", "instruction")
        return {name: getattr(self, name) for name in fields}

    def before(self, prompts: Sequence[Sample]) -> list[Sample]:
        """Each prompt with its shots before it. Raises: DataError if there are too few examples to show."""
        orders = self._orders(prompts) if self.count else [iter(())] * len(prompts)
        return [self._joined(prompt, self._shots(prompt, order)) for prompt, order in zip(prompts, orders, strict=True)]

    @cached_property
    def chosen(self) -> list[int]:
        """The pool: places in `examples`, drawn once."""
        size = len(self.examples)
        return sorted(random.Random(derive_seed("pool", self.seed)).sample(range(size), min(size, self.pool)))

    @cached_property
    def _features(self) -> tuple[list[int], NDArray[np.float32]]:
        """Places of the pool's examples that have a picture, and a vector for each."""
        assert self.encoder is not None
        pairs = [(place, example.images[0].source) for place in self.chosen if (example := self._example(place))
                 and example.images]  # fmt: skip
        vectors = [self.encoder.encode_images([source for _, source in part]) for part in in_runs(pairs, LOOK)]
        return [place for place, _ in pairs], np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32)

    def _orders(self, prompts: Sequence[Sample]) -> list[Iterator[int]]:
        """For each prompt, places of examples, those to show first."""
        if self.choose == "rices":
            return self._by_likeness(prompts)
        return [self._at_random(prompt) for prompt in prompts]

    def _at_random(self, prompt: Sample) -> Iterator[int]:
        return iter(random.Random(derive_seed(self.seed, prompt.name)).sample(self.chosen, len(self.chosen)))

    def _by_likeness(self, prompts: Sequence[Sample]) -> list[Iterator[int]]:
        assert self.encoder is not None
        places, vectors = self._features
        seen = [prompt.images[0].source for prompt in prompts if prompt.images]
        looks = iter(self.encoder.encode_images(seen) if seen else ())
        orders = []
        for prompt in prompts:
            if not prompt.images:
                orders.append(self._at_random(prompt))
                continue
            likeness = np.round(vectors @ next(looks), DIGITS)
            orders.append(iter([places[i] for i in np.argsort(-likeness, kind="stable")]))
        return orders

    def _shots(self, prompt: Sample, order: Iterator[int]) -> list[Sample]:
        """The first examples in order that can be read and do not show the prompt's own picture."""
        own, shots = {image_digest(image.source) for image in prompt.images}, list[Sample]()
        while len(shots) < self.count:
            place = next(order, None)
            if place is None:
                raise DataError(f"{prompt.name}: {len(shots)} examples to show, not {self.count}; ask for fewer shots")
            example = self._example(place)
            if example and example.name != prompt.name and own.isdisjoint(map(_digest, example.images)):
                shots.append(example)
        return shots[::-1] if self.choose == "rices" else shots

    def _example(self, place: int) -> Sample | None:
        """An example as it is shown; None if its row cannot be read, or its answer is not known."""
        if place not in self._read:
            try:
                example: Sample | None = self.examples[place]
                for image in example.images if example else ():
                    check_image(image.source)
            except (Refused, ImageError):
                example = None
            self._read[place] = example if example and _teaches(example) else None
        return self._read[place]

    def _joined(self, prompt: Sample, shots: Sequence[Sample]) -> Sample:
        segments: list[Segment] = []
        if not prompt.is_chat and self.instruction:
            segments.append(Text(self.instruction))
        for shot in shots:
            segments += self._solved(shot)
            if not prompt.is_chat:
                segments.append(Text(self.separator))
        return replace(prompt, segments=(*segments, *prompt.segments))

    def _solved(self, shot: Sample) -> Iterator[Segment]:
        for segment in shot.segments:
            if isinstance(segment, Text):
                yield Text(segment.text)
            elif not (self.choose == "text" and isinstance(segment, Image)):
                yield segment


def _digest(image: Image) -> str:
    return image_digest(image.source)


def _teaches(example: Sample) -> bool:
    return any(isinstance(one, Text) and one.supervised and one.text.strip() for one in example.segments)
