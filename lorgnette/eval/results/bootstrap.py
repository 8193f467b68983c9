"""Confidence intervals of scores. The unit is the picture: questions about one picture are not independent.

A bootstrap of pictures, but for two cases in which it claims too much: where all pictures have the same score, so that
every draw is alike, and where there are few of them. There it is Wilson's interval of a proportion.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lorgnette.eval.metrics.metric import Floats, mean

RESAMPLES = 1000
SEED = 20240503
FEW = 10
"""Pictures below which a bootstrap of them is too narrow, and a score says little."""
Z = 1.959964
"""Deviations of a normal distribution within which 95 % of it lie."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score in percent with its 95 % interval, and the number of examples behind it."""

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
    """The score of all examples in percent with its 95 % interval: by bootstrap, or Wilson's where that fails."""
    if not len(counts):
        return Estimate(0.0, 0.0, 0.0, 0)
    pooled, value = pool(counts, clusters), float(ratio(counts.sum(axis=0)))
    low, high = np.percentile(resample(pooled, ratio), [2.5, 97.5])
    if ratio is mean and 0 <= value <= 1 and (low == high or len(pooled) < FEW):
        low, high = wilson(value, len(pooled))
    return Estimate(100 * value, float(100 * low), float(100 * high), len(counts))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927): never empty, and within 0 and 1."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    reach = Z * np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


def paired_difference(
    after: Floats, before: Floats, ratio: Callable[[Floats], Floats], clusters: Sequence[Hashable]
) -> Estimate:
    """The score of `after` minus that of `before` on the same examples, in percent: both see the same draws.

    Where all pictures differ by the same, or there are few, as many others as Wilson's interval allows (of none among
    these) may differ by all or nothing: the interval is as wide as that.
    """

    def statistic(sums: Floats) -> Floats:
        return ratio(sums[..., 0, :]) - ratio(sums[..., 1, :])

    both = np.stack([after, before], axis=1)
    found = estimate(both, statistic, clusters)
    pictures = len(set(clusters))
    if not found.count or ratio is not mean or not (found.low == found.high or pictures < FEW):
        return found
    unseen = wilson(0.0, pictures)[1]
    low, high = ((1 - unseen) * bound + side * 100 * unseen for bound, side in ((found.low, -1), (found.high, 1)))
    return Estimate(found.value, float(max(low, -100.0)), float(min(high, 100.0)), found.count)


def questions_needed(after: Floats, before: Floats, points: float = 3.0) -> int:
    """Questions at which a paired difference of so many points is found four times in five, at the 95 % level.

    From the variance of the differences of these questions; 0 where they do not vary, so that nothing can be said.
    """
    scores = [mean(counts) for counts in (after, before)]
    variance = float(np.var(scores[0] - scores[1], ddof=1)) if len(after) > 1 else 0.0
    return int(np.ceil((Z + 0.841621) ** 2 * variance / (points / 100) ** 2))
