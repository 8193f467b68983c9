"""The order of records: the mixture of sources and the shuffle within each, computed for any range of draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeVar

import numpy as np

from lorgnette.data.index import Index
from lorgnette.data.plan.augment import BUFFER, GROUPS, hashed, image_costs
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.configs.connector_settings import ConnectorSettings

Measure = Literal["samples", "tokens", "supervised", "epochs"]
"""Quantities that the weights of sources may be shares of."""

BUFFER_RECORDS = 1024
"""Records in a shuffle buffer: row groups are shuffled, then the records of consecutive ones that hold this many."""

_WHOLE = 2**31
"""Largest common denominator of the shares. Rounding to it moves less than one sample in a run of 10^9."""

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


def remembered(kept: dict[_Key, _Value], key: _Key, most: int, make: Callable[[], _Value]) -> _Value:
    """Return `kept[key]`, computed if missing. A cache of `most` values: the oldest ones are dropped."""
    if key not in kept:
        made = make()
        while len(kept) >= most:
            del kept[next(iter(kept))]
        kept[key] = made
    return kept[key]


@dataclass(frozen=True)
class PlannedSource:
    """A prepared source as the plan knows it."""

    title: str
    index: Index
    weight: float = 1.0
    most_units: int | None = None
    """Most units in a sample."""


@dataclass(frozen=True)
class Mixture:
    """Interleaves sources so that each keeps its share throughout the run, without random numbers.

    Draw k of a source with share w is due at time (k + 1/2) / w, and draws are sorted by due time (to 31 binary places;
    ties in the order of sources). At any time the count of a source deviates from its share by at most half the number
    of sources, and over a whole run it is the exact share, rounded. Shares are the integers `parts` over their sum, so
    that all arithmetic is exact.
    """

    parts: tuple[int, ...]

    @classmethod
    def of(cls, weights: Sequence[Fraction]) -> Mixture:
        """Shares in proportion to weights: exact where the common denominator is at most 2**31, otherwise rounded."""
        total = sum(weights)
        shares = [weight / total for weight in weights]
        common = math.lcm(*(share.denominator for share in shares))
        if common > _WHOLE:
            return cls(tuple(max(1, round(share * (_WHOLE - len(shares)))) for share in shares))
        return cls(tuple(int(share * common) for share in shares))

    @classmethod
    def of_sources(
        cls, sources: Sequence[PlannedSource], by: Measure, means: Sequence[tuple[Fraction, Fraction]]
    ) -> Mixture:
        """Convert weights, which are shares of the quantity `by`, to shares of records. means: see `mean_tokens`.

        For tokens and supervised tokens a weight is divided by the exact mean of a record; for `epochs` a source of
        weight 2 is repeated twice as often as one of weight 1.
        """
        weights = [Fraction(str(source.weight)) for source in sources]
        if by == "epochs":
            weights = [weight * len(source.index) for weight, source in zip(weights, sources, strict=True)]
        elif by != "samples":
            chosen = [supervised_tokens if by == "supervised" else tokens for tokens, supervised_tokens in means]
            weights = [weight / mean for weight, mean in zip(weights, chosen, strict=True)]
        return cls.of(weights)

    @property
    def shares(self) -> tuple[Fraction, ...]:
        return tuple(Fraction(part, sum(self.parts)) for part in self.parts)

    def sample_order(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, number within the source) of the run's draws `first` to `last` (not included); int64 arrays."""
        whole, sources = sum(self.parts), len(self.parts)
        numbers, before = [], 0
        for part in self.parts:
            # The rank of a draw differs from its due time by at most half the number of sources.
            margin = part * sources // (2 * whole) + 2
            lowest = max(0, first * part // whole - margin)
            before += lowest
            numbers.append(np.arange(lowest, last * part // whole + 1 + margin, dtype=np.int64))
        source = np.repeat(np.arange(sources), [len(one) for one in numbers])
        number = np.concatenate(numbers)
        order = np.lexsort((source, self._due(source, number, first)))[first - before : last - before]
        return source[order], number[order]

    def _due(self, source: np.ndarray, number: np.ndarray, first: int) -> np.ndarray:
        """Due times of draws, (2 number + 1) * whole / (2 part), from `first` on, in units of 2**-31, rounded down."""
        part, whole = np.array(self.parts, dtype=np.uint64)[source], np.uint64(sum(self.parts))
        period, within = np.divmod(number.astype(np.uint64), part)
        due, rest = np.divmod((np.uint64(2) * within + np.uint64(1)) * whole, np.uint64(2) * part)
        places = (rest << np.uint64(31)) // (np.uint64(2) * part)
        # Times are relative to `first`, which leaves 31 bits for the fraction; draws far from it are only clipped.
        near = np.clip((period * whole + due).astype(np.int64) - first, -(2**30), 2**30)
        return near * 2**31 + places.astype(np.int64)


def mean_tokens(
    sources: Sequence[PlannedSource], split_share: float, images: ImageConfig, connector: ConnectorSettings
) -> list[tuple[Fraction, Fraction]]:
    """Exact mean of a record's tokens (visual ones included) and supervised tokens, for each source.

    split_share: share of samples whose images are split, over which the mean is taken too.
    """
    share = Fraction(str(split_share))
    means = []
    for index in (source.index for source in sources):
        text, supervised_tokens = (int(one.sum(dtype=np.int64)) for one in (index.tokens_U, index.supervised_U))
        text += int(index.prefix_tokens_E.sum(dtype=np.int64))
        sizes = index.width_I.astype(np.int64), index.height_I.astype(np.int64)
        whole, split = (
            int(image_costs(*sizes, np.full(len(sizes[0]), one), images, connector)[0].sum()) for one in (False, True)
        )
        tokens = text + (1 - share) * whole + share * split
        means.append((Fraction(tokens, len(index)), Fraction(max(1, supervised_tokens), len(index))))
    return means


class BlockShuffle:
    """A permutation of one source's records for each epoch: row groups are shuffled, then records within a buffer.

    Reads stay local, because consecutive records come from few row groups. Memory: one number per row group, and the
    buffers used last.
    """

    def __init__(self, index: Index, seed: int, source: int) -> None:
        self.records, self.seed, self.source = len(index), seed, source
        new = (np.diff(index.shard_E) != 0) | (np.diff(index.group_E) != 0)
        self._starts = np.concatenate([[0], np.flatnonzero(new) + 1, [len(index)]]).astype(np.int64)
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._buffers: dict[tuple[int, int], np.ndarray] = {}

    def records_of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(record, epoch) of the source's draws `numbers`; int64 arrays."""
        epoch, place = np.divmod(numbers, self.records)
        record = np.empty_like(place)
        for one in np.unique(epoch).tolist():
            here = np.flatnonzero(epoch == one)
            _, _, firsts = self._groups(one)
            buffer = np.searchsorted(firsts, place[here], side="right") - 1
            for number in np.unique(buffer).tolist():
                mine = here[buffer == number]
                record[mine] = self._buffer(one, number)[place[mine] - firsts[number]]
        return record, epoch

    def _groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shuffled row groups; first row group of each buffer; first record of each buffer."""
        return remembered(self._epochs, epoch, 2, lambda: self._shuffle_groups(epoch))

    def _buffer(self, epoch: int, buffer: int) -> np.ndarray:
        """The records of one buffer, shuffled."""
        return remembered(self._buffers, (epoch, buffer), 4, lambda: self._shuffle_buffer(epoch, buffer))

    def _shuffle_groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = len(self._starts) - 1
        order = np.argsort(hashed(self.seed, GROUPS, self.source, epoch, np.arange(groups)), kind="stable")
        ends = np.cumsum(np.diff(self._starts)[order])
        bounds, firsts = [0], [0]
        while ends[-1] - firsts[-1] > BUFFER_RECORDS:
            last = int(np.searchsorted(ends, firsts[-1] + BUFFER_RECORDS))
            last = min(max(last, bounds[-1] + 1), groups - 1)  # two row groups at least, where there are two
            if last + 1 >= groups:
                break
            bounds.append(last + 1)
            firsts.append(int(ends[last]))
        return order, np.array([*bounds, groups]), np.array(firsts)

    def _shuffle_buffer(self, epoch: int, buffer: int) -> np.ndarray:
        order, bounds, _ = self._groups(epoch)
        groups = order[bounds[buffer] : bounds[buffer + 1]]
        records = np.concatenate([np.arange(self._starts[one], self._starts[one + 1]) for one in groups])
        keys = hashed(self.seed, BUFFER, self.source, epoch, records)
        return np.asarray(records[np.argsort(keys, kind="stable")])
