"""Estimates over seeds and questions: a hierarchical bootstrap, with the small number of seeds taken into account.

Two things vary: another seed trains another model, and other questions would be answered otherwise. Each draw of the
bootstrap takes seeds with replacement, and pictures with replacement within each benchmark; questions about one picture
stay together. Few seeds understate their own spread: their deviations are widened by sqrt(n / (n - 1)), and their part
of the interval takes the quantile of Student's t for so many seeds, where percentiles of the draws would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lorgnette.errors import SettingsError
from lorgnette.eval.results.bootstrap import RESAMPLES, SEED
from lorgnette.study.result_rows import StudyRow, TaskScores

DRAWS = 10_000
QUESTION_FREEDOM = 1000
"""Degrees of freedom of an error that many questions give."""
MOST_SEEDS = 1000
"""Seeds beyond which a question is said to be out of reach of seeds."""
SCORE, LOSS = 4, 5
"""Places in a point of `StudyRow.score_curve`."""
Pooled = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Of one benchmark: sums over the questions of each picture, shape (seeds, pictures), and their numbers (pictures,)."""


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over seeds with its interval. In points for scores, in nats for losses."""

    value: float
    seeds: int
    seed_error: float
    """Standard error by seeds, and by seeds and questions together: more seeds make it smaller."""
    question_error: float = 0.0
    """Standard error by questions, which are the same for all seeds: more questions make it smaller."""
    level: float = 0.05

    @property
    def reach(self) -> float:
        """Half of the interval's width; infinite with one seed, which says nothing about other seeds."""
        return self._times(1 - self.level / 2, self.seeds)

    @property
    def low(self) -> float:
        return self.value - self.reach

    @property
    def high(self) -> float:
        return self.value + self.reach

    @property
    def detectable(self) -> float:
        """The effect that would be found four times of five, at this spread: both the mean and its error vary."""
        if self.seeds < 2:
            return math.inf
        generator, share = np.random.default_rng(SEED), 1 - self.level / 2
        luck = generator.normal(0, math.hypot(self.seed_error, self.question_error), DRAWS)
        spread = np.sqrt(generator.chisquare(self.seeds - 1, DRAWS) / (self.seeds - 1)) * self.seed_error
        widths = student(share, self.seeds - 1) * spread, student(share, QUESTION_FREEDOM) * self.question_error
        return float(np.quantile(np.hypot(*widths) - luck, 0.8))

    def seeds_needed(self, distance: float) -> int | None:
        """Seeds at which an interval would no longer reach over such a distance; None if only questions can help."""
        counts = range(2, MOST_SEEDS + 1)
        return next((count for count in counts if self._times(1 - self.level / 2, count) < distance), None)

    def _times(self, share: float, seeds: int) -> float:
        """Both errors at so many seeds, each times its own quantile, added in squares."""
        if seeds < 2:
            return math.inf
        of_seeds = student(share, seeds - 1) * self.seed_error * math.sqrt(self.seeds / seeds)
        return math.hypot(of_seeds, student(share, QUESTION_FREEDOM) * self.question_error)

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 1
        if self.seeds < 2:
            return f"{self.value:.{digits}f} (one seed)"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@lru_cache(maxsize=4096)
def student(share: float, freedom: int) -> float:
    """The quantile of Student's t, by integrating its tangent form: t = sqrt(f) tan(u), u of density cos(u)^(f - 1)."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.maximum(np.cos(angles), 0.0) ** (freedom - 1)
    cumulated = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(freedom) * np.tan(np.interp(share * cumulated[-1], cumulated, angles)))


def estimate_of(rows: Sequence[StudyRow], measure: str, level: float = 0.05) -> SeedEstimate:
    """A measure of one cell. rows: of its seeds. Raises: SettingsError for an unknown measure."""
    if is_one_number(measure):
        return of_seeds([measured_number(row, measure) for row in rows], level)
    return of_questions([pooled(task, measure) for task in _tasks(rows, measure).values()], level)


def difference(ours: Sequence[StudyRow], theirs: Sequence[StudyRow], measure: str, level: float) -> SeedEstimate | None:
    """A measure of one cell minus that of another, paired by seed and question. None where they share no seed.

    Raises: SettingsError for an unknown measure, or where the two were not asked the same questions.
    """
    by_seed = {row.seed: row for row in theirs}
    pairs = [(row, by_seed[row.seed]) for row in sorted(ours, key=lambda row: row.seed) if row.seed in by_seed]
    if not pairs:
        return None
    if is_one_number(measure):
        return of_seeds(
            [measured_number(one, measure) - measured_number(other, measure) for one, other in pairs], level
        )
    first, second = (_tasks([pair[side] for pair in pairs], measure) for side in (0, 1))
    for name, one in first.items():
        if {task.questions for task in (*one, *second.get(name, ()))} != {one[0].questions}:
            raise SettingsError(f"{name}: the two cells were not asked the same questions; measure both again")
    both = [(pooled(first[name], measure), pooled(second[name], measure)) for name in first]
    return of_questions([(one - other, counts) for (one, counts), (other, _) in both], level)


def of_seeds(values: Sequence[float], level: float) -> SeedEstimate:
    """The mean of one number for each seed."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return SeedEstimate(fmean(values), len(values), error, level=level)


def of_questions(tasks: Sequence[Pooled], level: float) -> SeedEstimate:
    """The mean over benchmarks of the mean over questions, in points."""
    seeds = len(tasks[0][0])
    by_seed_S = 100 * np.mean([sums.sum(axis=1) / counts.sum() for sums, counts in tasks], axis=0)
    seed_error = float(np.std(by_seed_S, ddof=1) / seeds**0.5) if seeds > 1 else 0.0
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES) / seeds
    total = np.zeros(RESAMPLES)
    for sums, counts in tasks:
        wider = sums if seeds < 2 else sums.mean(axis=0) + (sums - sums.mean(axis=0)) * (seeds / (seeds - 1)) ** 0.5
        pictures = len(counts)
        taken = generator.multinomial(pictures, [1 / pictures] * pictures, size=RESAMPLES)
        total += 100 * np.einsum("rs,sp,rp->r", drawn, wider, taken, optimize=True) / (taken @ counts)
    both = float(np.var(total / len(tasks)))
    return SeedEstimate(float(by_seed_S.mean()), seeds, seed_error, math.sqrt(max(both - seed_error**2, 0.0)), level)


def is_one_number(measure: str) -> bool:
    """Return whether a measure is one number for each seed, rather than one for each question."""
    return measure.startswith("loss") or measure == "score_curve"


def measured_number(row: StudyRow, measure: str) -> float:
    """A measure that is one number for each seed.

    `loss`: held-out, the mean over its sources. `loss_shuffled`: with other samples' images. `loss_gain`: the second
    minus the first. `score_curve` and `loss_curve`: means over the measurements during training, which stand at equal
    steps of all cells (Figure 4).

    Raises: SettingsError for another measure, or one that the row has not.
    """
    right, wrong = fmean(row.loss.values()), fmean(row.loss_shuffled.values())
    known = {"loss": right, "loss_shuffled": wrong, "loss_gain": wrong - right}
    if measure in ("score_curve", "loss_curve"):
        if not row.score_curve:
            raise SettingsError(f"{measure}: {row.cell} was not measured during training; set curve_every in the scale")
        return fmean(point[SCORE if measure == "score_curve" else LOSS] for point in row.score_curve)
    if measure not in known:
        raise SettingsError(
            f"there is no measure {measure!r}; use {', '.join(known)}, score_curve, loss_curve, score, blind, gain or a"
            " benchmark"
        )
    return known[measure]


def _tasks(rows: Sequence[StudyRow], measure: str) -> Mapping[str, list[TaskScores]]:
    """Scores of each benchmark that a measure is the mean of: a list over seeds. Raises: SettingsError."""
    names = list(rows[0].tasks) if measure in ("score", "blind", "gain") else [measure]
    for row in rows:
        if missing := [name for name in names if name not in row.tasks]:
            raise SettingsError(
                f"there is no measure {missing[0]!r}; use score, blind, gain, loss, loss_gain or one of"
                f" {', '.join(row.tasks)}"
            )
    return {name: [row.tasks[name] for row in rows] for name in names}


def pooled(tasks: Sequence[TaskScores], measure: str) -> Pooled:
    """The questions of one benchmark pooled by picture, for each seed."""
    values_SQ = np.array([task.blind if measure == "blind" else task.scores for task in tasks], dtype=np.float64)
    if measure == "gain":
        values_SQ -= np.array([task.blind for task in tasks])
    pictures_Q = np.array(tasks[0].pictures)
    sums_SP = np.stack([np.bincount(pictures_Q, weights=values_Q) for values_Q in values_SQ]).astype(np.float64)
    return sums_SP, np.bincount(pictures_Q).astype(np.float64)
