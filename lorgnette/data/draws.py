"""Which record comes next: the mixture of sources, and the order within each, for any stretch of the run at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from lorgnette.data.augment import BUFFER, GROUPS, hashed
from lorgnette.data.index import Index

BUFFER_RECORDS = 1024
"""Row groups are shuffled, then records among neighbours of as many row groups as hold this many records."""

WHOLE = 2**31
"""Shares are whole numbers out of this many: within one sample of a run of a thousand million."""


@dataclass(frozen=True)
class Mixture:
    """Sources taken in turn so that each keeps its share at every moment.

    Draw k of a source with share w is due at time (k + 1/2) / w, and draws are taken in the order in which they are
    due; equal times in the order of sources. Shares are whole numbers `parts` of their sum, so all is exact.
    """

    parts: tuple[int, ...]

    @classmethod
    def of(cls, weights: Sequence[Fraction]) -> Mixture:
        """Shares in proportion to weights: exact where a common denominator is small, else rounded to 2**-31."""
        total = sum(weights)
        shares = [weight / total for weight in weights]
        common = math.lcm(*(share.denominator for share in shares))
        if common > WHOLE:
            rounded = [max(1, round(share * (WHOLE - len(shares)))) for share in shares]
            return cls(tuple(rounded))
        return cls(tuple(int(share * common) for share in shares))

    def draws(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, number within the source) of the run's draws `first` to `last` (not included); int64 arrays."""
        whole = sum(self.parts)
        sources, numbers, before = [], [], 0
        for source, part in enumerate(self.parts):
            # A draw stands within half the number of sources from the time at which it is due.
            margin = part * len(self.parts) // (2 * whole) + 2
            lowest = max(0, first * part // whole - margin)
            highest = last * part // whole + 1 + margin
            before += lowest
            numbers.append(np.arange(lowest, highest, dtype=np.int64))
            sources.append(np.full(highest - lowest, source, dtype=np.int64))
        source, number = np.concatenate(sources), np.concatenate(numbers)
        order = self._due_order(source, number, first)[first - before : last - before]
        return source[order], number[order]

    def _due_order(self, source: np.ndarray, number: np.ndarray, first: int) -> np.ndarray:
        """Sort by (2 number + 1) * whole / (2 part): whole periods and 93 binary places are compared, which is exact."""
        part, whole = np.array(self.parts, dtype=np.uint64)[source], np.uint64(sum(self.parts))
        period, within = np.divmod(number.astype(np.uint64), part)
        due, rest = np.divmod((np.uint64(2) * within + np.uint64(1)) * whole, np.uint64(2) * part)
        due = (period * whole + due).astype(np.int64) - first  # small again: within the stretch and its margin
        places = []
        for _ in range(3):
            place, rest = np.divmod(rest << np.uint64(31), np.uint64(2) * part)
            places.append(place.astype(np.int64))
        high, low = due * 2**31 + places[0], places[1] * 2**31 + places[2]
        return np.lexsort((source, low, high))


class BlockShuffle:
    """The records of one source in the order of any epoch, each once, by shuffling row groups and then neighbours.

    Reads stay local: a stretch of the order touches few row groups. What is held is a number per row group and one
    shuffled stretch.
    """

    def __init__(self, index: Index, seed: int, source: int) -> None:
        self.records, self.seed, self.source = len(index), seed, source
        new = (np.diff(index.shard_E) != 0) | (np.diff(index.group_E) != 0)
        self._starts = np.concatenate([[0], np.flatnonzero(new) + 1, [len(index)]]).astype(np.int64)
        self._epoch = lru_cache(maxsize=2)(self._shuffle_groups)
        self._buffer = lru_cache(maxsize=4)(self._shuffle_buffer)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_epoch", "_buffer")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._epoch = lru_cache(maxsize=2)(self._shuffle_groups)
        self._buffer = lru_cache(maxsize=4)(self._shuffle_buffer)

    def records_of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(record, epoch) of the source's draws `numbers`; int64 arrays."""
        epoch, place = np.divmod(numbers, self.records)
        record = np.empty_like(place)
        for one in np.unique(epoch):
            here = np.flatnonzero(epoch == one)
            _, bounds, firsts = self._epoch(int(one))
            buffer = np.searchsorted(firsts, place[here], side="right") - 1
            for number in np.unique(buffer):
                mine = here[buffer == number]
                record[mine] = self._buffer(int(one), int(number))[place[mine] - firsts[number]]
        return record, epoch

    def _shuffle_groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row groups in their order, where each buffer begins among them, and where it begins among records."""
        groups = len(self._starts) - 1
        order = np.argsort(hashed(self.seed, GROUPS, self.source, epoch, np.arange(groups)), kind="stable")
        sizes = np.diff(self._starts)[order]
        ends = np.cumsum(sizes)
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
        """The records of one buffer in their order."""
        order, bounds, _ = self._epoch(epoch)
        groups = order[bounds[buffer] : bounds[buffer + 1]]
        records = np.concatenate([np.arange(self._starts[one], self._starts[one + 1]) for one in groups])
        keys = hashed(self.seed, BUFFER, self.source, epoch, records)
        return np.asarray(records[np.argsort(keys, kind="stable")])
