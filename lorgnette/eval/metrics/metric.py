"""`Metric`: counts that add up, and a ratio of their sums.

So one mechanism serves means over examples (accuracy), micro-averages (word error rate) and corpus scores (BLEU), and a
bootstrap of any of them is a matter of resampling rows of counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference (ground truth) of an answer: reference answers, and the options of a multiple-choice question."""

    answers: tuple[str, ...]
    options: tuple[str, ...] = ()
    form: str = ""
    """Format of an answer, where a benchmark gives one: `integer`, `float:2` (decimal places), `list`."""
    group: str = ""
    """Questions of one group count as one, and only if all of them are right: the passes of a circular evaluation."""


CountFunction = Callable[[Sequence[str], Sequence[Reference]], Sequence[Sequence[float]]]
"""From answers and what they are judged by to rows of counts."""


def mean(sums: Floats) -> Floats:
    """First count over the second, 0 where there is nothing: shape (..., 2) to (...)."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] > 0)


@dataclass(frozen=True)
class Metric:
    """A way to judge answers. Scores are fractions: 1 is perfect (CIDEr-D alone exceeds it, at most 10)."""

    count: CountFunction
    """One row of counts per example. It sees all examples at once, as CIDEr-D's document frequencies need."""
    ratio: Callable[[Floats], Floats] = mean
    """Sums of counts, shape (..., counts), to scores, shape (...)."""
    higher_is_better: bool = True
    version: int = 1
    """Raised when answers get other scores than before; stored beside the scores."""
    of_one: str = ""
    """Reason why the score of a single example is meaningless; empty where it is meaningful."""

    def counts(self, answers: Sequence[str], truths: Sequence[Reference]) -> Floats:
        """Counts of each example, shape (examples, counts)."""
        if len(answers) != len(truths):
            raise ValueError(f"{len(answers)} answers for {len(truths)} references")
        return np.asarray(self.count(answers, truths), dtype=np.float64)

    def scores(self, answers: Sequence[str], truths: Sequence[Reference]) -> list[float]:
        """The score of each example by itself."""
        return [float(score) for score in self.ratio(self.counts(answers, truths))] if answers else []

    def overall(self, answers: Sequence[str], truths: Sequence[Reference]) -> float:
        """The score of all examples together."""
        return float(self.ratio(self.counts(answers, truths).sum(axis=0))) if answers else 0.0


def per_example(score: Callable[[str, Reference], float], version: int = 1) -> Metric:
    """The metric that is the mean of a score of each example."""
    return Metric(
        lambda answers, truths: [(score(a, t), 1.0) for a, t in zip(answers, truths, strict=True)], version=version
    )
