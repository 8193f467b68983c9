"""Which samples make each step: a pure function of (settings, lengths, step), by integer arithmetic alone.

No state is kept and nothing is communicated, so resuming is a step number, and the number of ranks or workers changes
nothing. `Plan` counts samples, for sources that make them on demand; `PackedPlan` fills packs by length, for sources
that were prepared.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from lorgnette.data.augment import PACKS, Augmenter, Variation, hashed
from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.draws import BlockShuffle, Mixture
from lorgnette.data.index import Index
from lorgnette.data.packing import pack_lengths
from lorgnette.data.pieces import Cutter, Pieces
from lorgnette.errors import DataError
from lorgnette.files import write_json
from lorgnette.inputs.config import ImageConfig

WINDOW_PACKS = 128
"""Packs that a window is meant to fill: more fill better, fewer keep reads and the mixture closer together."""
LEAST_PACKS, MOST_DRAWS = 8, 16_384
"""A window fills this many packs however small its sources are, and draws no more records than this."""


@dataclass(frozen=True, slots=True, order=True)
class SampleRef:
    """One sample of the run: which source, which of its rows, and how often the source was gone through before."""

    source: int
    index: int
    epoch: int
    start: int = 0
    """The first of the record's units that the sample holds; of prepared sources."""
    end: int = -1
    """The end of its units (not included)."""

    def __str__(self) -> str:
        """As it stands in a digest."""
        whole = f"{self.source},{self.index},{self.epoch}"
        return whole if self.end < 0 else f"{whole},{self.start},{self.end}"


def digest_of(packs: Sequence[Sequence[SampleRef]]) -> str:
    """Twelve hex digits that name what a step trains on, given its samples pack by pack."""
    text = "|".join(";".join(map(str, pack)) for pack in packs)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


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
        return digest_of([self.step(step)])

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


@dataclass(frozen=True)
class Planned:
    """A prepared source as the plan knows it."""

    title: str
    index: Index
    weight: float = 1.0
    most_units: int | None = None
    """Units in a sample, at most."""
    shuffle: bool = True
    """Whether units may change places where the record allows it."""


@dataclass(frozen=True)
class TooLong:
    """A unit that fits in no pack, and is therefore never trained on."""

    source: str
    record: str
    unit: int


@dataclass(frozen=True)
class PackedPlan:
    """The order of training on prepared sources, in packs filled by length.

    The run is a sequence of draws, each a record with all its pieces. A window is a fixed number of draws, packed on
    its own; the packs of all windows in order, `pack.per_step` at a time, are the steps. To find a step the packs of
    the windows before it are counted; counts are kept, and can be saved, but are only a cache.

    by: what the weights are shares of. Converted to samples by the exact mean lengths of the indexes.
    visual_tokens: what each image, or each crop of a split one, becomes.
    """

    sources: tuple[Planned, ...]
    pack: PackConfig
    seed: int
    images: ImageConfig
    visual_tokens: int
    augment: AugmentConfig = AugmentConfig()
    by: Literal["samples", "tokens", "learned"] = "samples"

    def step(self, step: int) -> list[SampleRef]:
        """The samples of one step, in order."""
        return [ref for pack in self.packs(step) for ref in pack]

    def packs(self, step: int) -> list[list[SampleRef]]:
        """The samples of one step, pack by pack."""
        first = step * self.pack.per_step
        return [self._pack(number) for number in range(first, first + self.pack.per_step)]

    def digest(self, step: int) -> str:
        """Twelve hex digits that name what a step trains on."""
        return digest_of(self.packs(step))

    def name(self, ref: SampleRef) -> str:
        """How messages and lists call a sample."""
        source = self.sources[ref.source]
        units = f", units {ref.start}-{ref.end - 1}" if ref.end - ref.start < source.index.units_E[ref.index] else ""
        return f"{source.title}: {source.index.name(ref.index)}{units}"

    def variation(self, ref: SampleRef, shuffle: bool) -> Variation:
        """How a sample is shown. shuffle: whether its record allows another order of its units."""
        cutter, place = self._cutters[ref.source], (ref.source, ref.index, ref.epoch)
        split, sizes_I = cutter.shown(ref.index, ref.epoch)
        order = None
        if shuffle and self.sources[ref.source].shuffle:
            order = self._augmenter.order(place, ref.start, ref.end)
        units = range(ref.start, ref.end) if order is None else [ref.start + one for one in order]
        sizes = None if sizes_I is None else tuple(sizes_I[one] for one in cutter.images_of(ref.index, units))
        return Variation(split, sizes, order)

    def replacements(self, ref: SampleRef, most: int = 64) -> Iterator[SampleRef]:
        """What is tried, in this order, where a sample cannot be read: others of its source that take no more room."""
        cutter, index = self._cutters[ref.source], self.sources[ref.source].index
        room = self._cost(ref)
        for attempt in range(most):
            record = self._augmenter.replacement((ref.source, ref.index, ref.epoch), attempt, len(index))
            pieces = cutter.pieces(np.array([record]), np.array([ref.epoch]))
            fits = np.flatnonzero((pieces.tokens <= room[0]) & (pieces.patches <= room[1]))
            if len(fits) and record != ref.index:
                start, end = int(pieces.start[fits[0]]), int(pieces.end[fits[0]])
                yield SampleRef(ref.source, record, ref.epoch, start, end)

    def too_long(self) -> list[TooLong]:
        """Every unit that fits in no pack."""
        found = []
        for source, cutter in zip(self.sources, self._cutters, strict=True):
            records, units = cutter.too_long()
            pairs = zip(records.tolist(), units.tolist(), strict=True)
            found += [TooLong(source.title, source.index.name(record), unit) for record, unit in pairs]
        return found

    def fill(self, window: int) -> tuple[int, int, int]:
        """(tokens, patches, packs) of a window, as planned."""
        made = self._window(window)
        return int(made.pieces.tokens.sum()), int(made.pieces.patches.sum()), len(made.packs)

    @cached_property
    def draws_per_window(self) -> int:
        """Records drawn for a window: enough for its packs, but not much more than all records once."""
        shares = [Fraction(part, sum(self._mixture.parts)) for part in self._mixture.parts]
        mean = sum(share * cutter.mean_tokens() for share, cutter in zip(shares, self._cutters, strict=True))
        once = max(len(source.index) / share for source, share in zip(self.sources, shares, strict=True))
        wanted, least = (math.ceil(packs * self.pack.tokens / max(1, mean)) for packs in (WINDOW_PACKS, LEAST_PACKS))
        return min(max(min(wanted, math.ceil(once)), least), MOST_DRAWS)

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.augment, self.images, self.seed)

    @cached_property
    def _cutters(self) -> list[Cutter]:
        return [
            Cutter(one.index, number, self._augmenter, self.pack, self.visual_tokens, one.most_units)
            for number, one in enumerate(self.sources)
        ]

    @cached_property
    def _mixture(self) -> Mixture:
        weights = [Fraction(str(source.weight)) for source in self.sources]
        if self.by == "tokens":
            weights = [weight / cutter.mean_tokens() for weight, cutter in zip(weights, self._cutters, strict=True)]
        elif self.by == "learned":
            weights = [weight / cutter.mean_learned() for weight, cutter in zip(weights, self._cutters, strict=True)]
        return Mixture.of(weights)

    @cached_property
    def _orders(self) -> list[BlockShuffle]:
        return [BlockShuffle(source.index, self.seed, number) for number, source in enumerate(self.sources)]

    @cached_property
    def _ends(self) -> list[int]:
        """Packs up to the end of each window that was counted."""
        return []

    @cached_property
    def _kept(self) -> dict[int, _Window]:
        """The windows met last."""
        return {}

    def _pack(self, number: int) -> list[SampleRef]:
        """The samples of the run's pack `number`."""
        while not self._ends or self._ends[-1] <= number:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._window(len(self._ends)).packs))
        window = bisect_right(self._ends, number)
        made = self._window(window)
        return made.refs(made.packs[number - (self._ends[window - 1] if window else 0)])

    def _window(self, number: int) -> _Window:
        if number not in self._kept:
            made = self._make_window(number)
            while len(self._kept) >= 2:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = made
        return self._kept[number]

    def _make_window(self, number: int) -> _Window:
        """Draw, cut and pack one window, and put its packs in an order drawn by lot."""
        first = number * self.draws_per_window
        drawn, numbers = self._mixture.draws(first, first + self.draws_per_window)
        parts, sources, records, epochs = [], [], [], []
        for source, (order, cutter) in enumerate(zip(self._orders, self._cutters, strict=True)):
            record_E, epoch_E = order.records_of(numbers[drawn == source])
            pieces = cutter.pieces(record_E, epoch_E)
            parts.append(pieces)
            sources.append(np.full(len(pieces.record), source))
            records.append(record_E[pieces.record])
            epochs.append(epoch_E[pieces.record])
        pieces = Pieces.joined(parts)
        packs = pack_lengths(pieces.tokens, pieces.patches, self.pack)
        if not packs:
            titles = ", ".join(source.title for source in self.sources)
            raise DataError(
                f"{titles}: of {self.draws_per_window} records none fits a pack of {self.pack.tokens} tokens and"
                f" {self.pack.patches} patches with something to learn; make the packs larger"
            )
        order = np.argsort(hashed(self.seed, PACKS, number, np.arange(len(packs))), kind="stable")
        joined = (np.concatenate(one) for one in (sources, records, epochs))
        return _Window(pieces, *joined, [packs[one] for one in order.tolist()])

    def _cost(self, ref: SampleRef) -> tuple[int, int]:
        """Tokens and patches of a sample, as planned."""
        pieces = self._cutters[ref.source].pieces(np.array([ref.index]), np.array([ref.epoch]))
        [place] = np.flatnonzero(pieces.start == ref.start)
        return int(pieces.tokens[place]), int(pieces.patches[place])

    @cached_property
    def key(self) -> str:
        """Names everything that the order depends on: settings and lengths."""
        settings = [self.pack.plain(), self.seed, self.images.plain(), self.visual_tokens, self.augment.plain(), self.by]
        settings += [[one.weight, one.most_units] for one in self.sources]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for one in self.sources:
            for name in ("shard_E", "group_E", "head_tokens_E", "units_E", "images_E", "tokens_U", "learned_U"):
                digest.update(np.ascontiguousarray(getattr(one.index, name)))
            for name in ("unit_I", "width_I", "height_I"):
                digest.update(np.ascontiguousarray(getattr(one.index, name)))
        return digest.hexdigest()[:12]

    def save_counts(self, path: str | Path) -> None:
        """Keep how many packs the windows counted so far have, so that resuming need not count them again."""
        counts = [end - start for start, end in pairwise([0, *self._ends])]
        write_json(path, {"plan": self.key, "packs": counts})

    def load_counts(self, path: str | Path) -> None:
        """Read what `save_counts` wrote, if it is there, whole, and of this plan; without it all is counted again."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            counts = [int(count) for count in found["packs"]] if found["plan"] == self.key else []
        except (OSError, ValueError, KeyError, TypeError):
            return
        if len(counts) > len(self._ends):
            self._ends[:] = accumulate(counts)


@dataclass(frozen=True, eq=False)
class _Window:
    """The pieces of a window, and which of them form each pack."""

    pieces: Pieces
    source: np.ndarray
    record: np.ndarray
    epoch: np.ndarray
    packs: list[list[int]]

    def refs(self, pack: list[int]) -> list[SampleRef]:
        columns = (self.source, self.record, self.epoch, self.pieces.start, self.pieces.end)
        return [SampleRef(*row) for row in zip(*(column[pack].tolist() for column in columns), strict=True)]
