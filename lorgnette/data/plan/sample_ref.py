"""The order of training on sources that make samples on demand: a pure function of (settings, step).

No state is kept and nothing is communicated, so resuming is a step number, and the number of ranks or workers changes
nothing. `Plan` counts samples; `lorgnette.data.plan.pack_plan.PackedPlan` fills packs by length, for prepared sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lorgnette.data.plan.mixture import Mixture


class SampleRef(NamedTuple):
    """One sample of the run: which source, which of its records, and how often it was gone through before."""

    source: int
    record: int
    epoch: int
    start: int = 0
    """The first of the record's units that the sample holds; of prepared sources."""
    end: int = -1
    """The end of its units (not included)."""

    def __str__(self) -> str:
        """As it stands in a digest."""
        whole = f"{self.source},{self.record},{self.epoch}"
        return whole if self.end < 0 else f"{whole},{self.start},{self.end}"


def digest_of(refs: Iterable[str]) -> str:
    """Sixteen hex digits that name what a step trains on: the same in whatever order and packs its samples stand.

    refs: `str` of each sample. The digest is the sum of their hashes, so that ranks can add theirs; see `joined`.
    """
    hashes = (hashlib.sha256(ref.encode()).digest()[:8] for ref in refs)
    return f"{sum(int.from_bytes(one) for one in hashes) % 2**64:016x}"


def joined(digests: Iterable[str]) -> str:
    """The digest of a step from those of its parts, one from each rank."""
    return f"{sum(int(one, 16) for one in digests) % 2**64:016x}"


@dataclass(frozen=True)
class Plan:
    """The order of training.

    sizes: samples in each source; None for a source that never ends (its sample n is made on demand).
    weights: share of each source in samples; see `Mixture`.
    """

    sizes: tuple[int | None, ...]
    weights: tuple[float, ...]
    samples_per_step: int
    seed: int

    def step(self, step: int) -> list[SampleRef]:
        """The samples of one step, in order."""
        first = step * self.samples_per_step
        mixture = Mixture.of([Fraction(str(weight)) for weight in self.weights])
        sources, numbers = mixture.sample_order(first, first + self.samples_per_step)
        return [self._ref(*draw) for draw in zip(sources.tolist(), numbers.tolist(), strict=True)]

    def digest(self, step: int) -> str:
        """Sixteen hex digits that name what a step trains on."""
        return digest_of(map(str, self.step(step)))

    def _ref(self, source: int, number: int) -> SampleRef:
        size = self.sizes[source]
        if size is None:
            return SampleRef(source, number, 0)
        epoch, place = divmod(number, size)
        return SampleRef(source, int(_shuffled(self.seed, source, epoch, size)[place]), epoch)


@lru_cache(maxsize=16)
def _shuffled(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
    """The rows of a source in the order of one epoch."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[source, epoch, 0, 0])).permutation(size)
