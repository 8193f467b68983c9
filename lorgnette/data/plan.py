"""Which samples make each step: a pure function of (mixture, seed, step), by integer arithmetic alone.

No state is kept and nothing is communicated, so resuming is a step number, and the number of ranks or workers changes
nothing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, slots=True, order=True)
class SampleRef:
    """One sample of the run: which source, which of its rows, and how often the source was gone through before."""

    source: int
    index: int
    epoch: int


@dataclass(frozen=True)
class Plan:
    """The order of training.

    sizes: samples in each source; None for a source that never ends (its sample n is made on demand).
    weights: share of each source. Sample k of a source with share w is due at time (k + 1/2) / w, and samples are taken
        in the order in which they are due: at every moment each source is within one sample of its share for two
        sources (and within a few for many), and the counts over a whole run are the exact rounding.
    """

    sizes: tuple[int | None, ...]
    weights: tuple[float, ...]
    samples_per_step: int
    seed: int

    def step(self, step: int) -> list[SampleRef]:
        """The samples of one step, in order."""
        first = step * self.samples_per_step
        return [self._ref(source, number) for source, number in self._draws(first, first + self.samples_per_step)]

    def digest(self, step: int) -> str:
        """Twelve hex digits that name what a step trains on."""
        text = ";".join(f"{ref.source},{ref.index},{ref.epoch}" for ref in self.step(step))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _shares(self) -> list[Fraction]:
        weights = [Fraction(weight) for weight in self.weights]
        return [weight / sum(weights) for weight in weights]

    def _draws(self, first: int, last: int) -> list[tuple[int, int]]:
        """(source, number within the source) of the run's samples `first` to `last` (not included)."""
        shares = self._shares()
        margin = len(shares)
        due: list[tuple[Fraction, int, int]] = []
        before = 0  # samples due too early to stand in the window
        for source, share in enumerate(shares):
            lowest = max(0, math.floor(first * share) - margin)
            before += lowest
            numbers = range(lowest, math.ceil(last * share) + margin)
            due += [((number + Fraction(1, 2)) / share, source, number) for number in numbers]
        due.sort()
        return [(source, number) for _, source, number in due[first - before : last - before]]

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
