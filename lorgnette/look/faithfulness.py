"""A check of a map on its own picture: taking out its best cells first must cost more than taking out any others.

Deletion after Petsiuk et al. (RISE, 2018), with patches removed instead of painted over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorgnette.look.occlusion import Occluder
from lorgnette.look.steps import Steps, finish
from lorgnette.seeds import derive_seed

SHARES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75)
"""Shares of the cells that are taken out, at least one cell each."""
ORDERS = 39
"""Random orders that a map is compared with."""
MOST_BETTER = 0.05
"""Share of random orders that may cost as much as the order of a map that says something."""


@dataclass(frozen=True)
class Faithfulness:
    """Cost of taking out the best cells of a map over taking out random ones, in nats per token of the answer."""

    drop: float
    """Mean fall of log-probability over the shares, best cells first."""
    gains: tuple[float, ...]
    """`drop` minus that of each random order."""

    @property
    def gain(self) -> float:
        return float(np.mean(self.gains))

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 90 % of the gains over single random orders."""
        low, high = np.quantile(self.gains, (MOST_BETTER, 1 - MOST_BETTER))
        return float(low), float(high)

    @property
    def says_something(self) -> bool:
        """Return whether the map tells more than a random one: at most 5 % of the random orders cost more.

        An order that costs the same counts half (the mid-p value).
        A single order is the measure, not the mean of many: a map that knows nothing is one random order too, and would
        differ from the mean of the others as often as not.
        """
        better = np.mean([gain < 0 for gain in self.gains]) + np.mean([gain == 0 for gain in self.gains]) / 2
        return bool(better <= MOST_BETTER)

    @property
    def sentence(self) -> str:
        """The worth of the map in words."""
        low, high = self.interval
        gain = f"{self.gain:+.2f} nats a token ({low:+.2f} to {high:+.2f} over single ones)"
        if self.says_something:
            return f"Taking out the places that the map marks costs {gain} more than taking out random ones."
        said = "This map says nothing: taking out the places that it marks costs no more than taking out random ones"
        return f"{said} ({gain})."


def check_map(occluder: Occluder, values: np.ndarray, orders: int = ORDERS, seed: int = 0) -> Faithfulness:
    """Compare a map with random orders. values: a number for each cell, the larger the sooner it is taken out."""
    return finish(check_steps(occluder, values, orders, seed))


def check_steps(occluder: Occluder, values: np.ndarray, orders: int = ORDERS, seed: int = 0) -> Steps[Faithfulness]:
    """As `check_map`, one pass of the model at a time."""
    count = len(occluder.cells)
    draw = np.random.default_rng(derive_seed(seed, "look"))
    ways = [np.argsort(-values, kind="stable"), *(draw.permutation(count) for _ in range(orders))]
    sizes = sorted({max(1, round(share * count)) for share in SHARES})
    sets = [order[:size].tolist() for order in ways for size in sizes]
    scores = yield from occluder.score_steps([(), *sets])
    drops = (scores[0] - scores[1:]).mean(1).reshape(len(ways), len(sizes)).mean(1)
    return Faithfulness(float(drops[0]), tuple((drops[0] - drops[1:]).tolist()))
