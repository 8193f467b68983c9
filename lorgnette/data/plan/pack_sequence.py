"""The sequence of all packs of a run, computed window by window."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from lorgnette.data.plan.augment import PACKS, hashed
from lorgnette.data.plan.mixture import BlockShuffle, Mixture, PlannedSource, remembered
from lorgnette.data.plan.packing import pack_lengths
from lorgnette.data.plan.sample_ref import SampleRef
from lorgnette.data.plan.splitting import RecordSplitter
from lorgnette.errors import DataError
from lorgnette.files import write_json
from lorgnette.untrusted import read_json

WINDOW_PACKS = 512
"""Packs that a window should fill. A larger window leaves less of its packs empty; a smaller one reads fewer row groups
at a time and follows the mixture more closely."""
LEAST_PACKS, MOST_DRAWS = 32, 16_384
"""Least number of packs of a window, even where its sources are small; and most records that a window draws."""


@dataclass(frozen=True)
class Window:
    """The packs made from a fixed number of draws, and the sum of their tokens and of their patches."""

    packs: list[list[SampleRef]]
    tokens: int
    patches: int


@dataclass(frozen=True, eq=False)
class PackSequence:
    """The packs of a run, by number.

    The number of packs in a window is known only once the window is packed, so finding pack n packs every window before
    it. The counts found this way are cached, and can be saved and loaded.

    means: tokens and supervised tokens of a record of each source; see `mean_tokens`.
    """

    sources: Sequence[PlannedSource]
    splitter: RecordSplitter
    mixture: Mixture
    means: Sequence[tuple[Fraction, Fraction]]
    seed: int

    def pack(self, number: int) -> list[SampleRef]:
        """The samples of the run's pack `number`."""
        self.count(number)
        window = bisect_right(self._ends, number)
        return self.window(window).packs[number - (self._ends[window - 1] if window else 0)]

    def count(self, number: int) -> None:
        """Pack windows until pack `number` is reached, and remember how many packs each one has."""
        while not self._ends or self._ends[-1] <= number:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self.window(len(self._ends)).packs))

    def window(self, number: int) -> Window:
        """Window `number`; the two made last are cached."""
        return remembered(self._kept, number, 2, lambda: self._make(number))

    @cached_property
    def draws_per_window(self) -> int:
        """Records drawn for a window: enough to fill `WINDOW_PACKS` packs, but not more than one pass over any source.

        `LEAST_PACKS` comes before the second rule, and `MOST_DRAWS` before both.
        """
        shares, limits = self.mixture.shares, self.splitter.pack
        mean = sum((share * tokens for share, (tokens, _) in zip(shares, self.means, strict=True)), start=Fraction(0))
        held = limits.tokens / max(mean, Fraction(1))
        if limits.samples is not None:
            held = min(held, Fraction(limits.samples))
        once = min(len(source.index) / share for source, share in zip(self.sources, shares, strict=True))
        wanted, least = (math.ceil(packs * held) for packs in (WINDOW_PACKS, LEAST_PACKS))
        draws = min(max(min(wanted, math.ceil(once)), least), MOST_DRAWS)
        return draws if limits.samples is None else -(-draws // limits.samples) * limits.samples

    @property
    def counts(self) -> list[int]:
        """Number of packs of each window that was counted or loaded so far."""
        return [end - start for start, end in pairwise([0, *self._ends])]

    def save(self, path: str | Path, plan: str) -> None:
        """Write the counts to a JSON file. plan: key of the plan that they belong to."""
        write_json(path, {"plan": plan, "packs": self.counts})

    def load(self, path: str | Path, plan: str) -> None:
        """Read the counts that `save` wrote; a file that is missing, damaged or of another plan is ignored."""
        try:
            found = read_json(path)
            counts = [int(count) for count in found["packs"]] if found["plan"] == plan else []
        except (DataError, ValueError, KeyError, TypeError, OverflowError):
            return
        if len(counts) > len(self._ends) and min(counts) > 0:
            self._ends[:] = accumulate(counts)

    @cached_property
    def _ends(self) -> list[int]:
        """Number of packs up to the end of each counted window (cumulative)."""
        return []

    @cached_property
    def _kept(self) -> dict[int, Window]:
        """Cache of the windows made last."""
        return {}

    @cached_property
    def _orders(self) -> list[BlockShuffle]:
        return [BlockShuffle(source.index, self.seed, number) for number, source in enumerate(self.sources)]

    def _make(self, number: int) -> Window:
        """Draw, split and pack one window, and shuffle its packs. Raises: DataError if no record fits a pack."""
        first = number * self.draws_per_window
        source, numbers = self.mixture.sample_order(first, first + self.draws_per_window)
        record, epoch = np.empty_like(numbers), np.empty_like(numbers)
        for one, order in enumerate(self._orders):
            here = np.flatnonzero(source == one)
            record[here], epoch[here] = order.records_of(numbers[here])
        limits = self.splitter.pack
        pieces = self.splitter.pieces(self.splitter.lengths.first_S[source] + record, epoch)
        packs = pack_lengths(pieces.tokens, pieces.patches, limits)
        if not packs:
            titles = ", ".join(source.title for source in self.sources)
            raise DataError(
                f"{titles}: none of {self.draws_per_window} records drawn has supervised tokens and fits a pack of"
                f" {limits.tokens} tokens and {limits.patches} patches; make the packs larger"
            )
        keys = hashed(self.seed, PACKS, number, np.arange(len(packs)))
        packs = [packs[one] for one in np.argsort(keys, kind="stable").tolist()]
        laid = np.concatenate(packs)  # pieces in the order of the run
        entry = pieces.entry[laid]
        columns = source[entry], record[entry], epoch[entry], pieces.start[laid], pieces.end[laid]
        refs = list(map(SampleRef, *(column.tolist() for column in columns)))
        bounds = pairwise(accumulate(map(len, packs), initial=0))
        return Window([refs[a:b] for a, b in bounds], int(pieces.tokens.sum()), int(pieces.patches.sum()))
