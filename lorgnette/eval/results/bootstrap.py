"""Bootstrap intervals. The unit that is drawn is the picture: questions about one picture are not independent."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lorgnette.eval.metrics.metric import Floats

RESAMPLES = 1000
SEED = 20240503


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score in percent with its bootstrap 95 % interval, and the number of examples behind it."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def pool(counts: Floats, clusters: Sequence[Hashable]) -> Floats:
    """Counts of examples summed within each cluster: shape (examples, counts) to (clusters, counts)."""
    rows: dict[Hashable, int] = {}
    index = [rows.setdefault(cluster, len(rows)) for cluster in clusters]
    pooled = np.zeros((len(rows), *counts.shape[1:]))
    np.add.at(pooled, index, counts)
    return pooled


def resample(pooled: Floats, statistic: Callable[[Floats], Floats], resamples: int = RESAMPLES) -> Floats:
    """The statistic of the sums of `resamples` draws of clusters with replacement, from a fixed seed."""
    generator, size = np.random.default_rng(SEED), len(pooled)
    draws = (np.bincount(generator.integers(size, size=size), minlength=size) for _ in range(resamples))
    flat = pooled.reshape(size, -1)
    sums = np.stack([draw @ flat for draw in draws])
    return statistic(sums.reshape(resamples, *pooled.shape[1:]))


def estimate(counts: Floats, ratio: Callable[[Floats], Floats], clusters: Sequence[Hashable]) -> Estimate:
    """The score of all examples, in percent, and the middle 95 % of its bootstrap distribution."""
    if not len(counts):
        return Estimate(0.0, 0.0, 0.0, 0)
    low, high = np.percentile(100 * resample(pool(counts, clusters), ratio), [2.5, 97.5])
    return Estimate(float(100 * ratio(counts.sum(axis=0))), float(low), float(high), len(counts))


def paired_difference(
    after: Floats, before: Floats, ratio: Callable[[Floats], Floats], clusters: Sequence[Hashable]
) -> Estimate:
    """The score of `after` minus that of `before` on the same examples, in percent: both see the same draws."""

    def statistic(sums: Floats) -> Floats:
        return ratio(sums[..., 0, :]) - ratio(sums[..., 1, :])

    return estimate(np.stack([after, before], axis=1), statistic, clusters)
