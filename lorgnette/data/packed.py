"""The order of training on prepared sources: packs filled by length, a pure function of (settings, indexes, step)."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from lorgnette.data.augment import PACKS, Augmenter, hashed, image_costs
from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.draws import BlockShuffle, Mixture, remembered
from lorgnette.data.index import Index
from lorgnette.data.packing import pack_lengths
from lorgnette.data.pieces import Cutter, Lengths
from lorgnette.data.plan import SampleRef, digest_of
from lorgnette.errors import DataError
from lorgnette.files import write_json
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import ConnectorSettings
from lorgnette.untrusted import read_json

Measure = Literal["samples", "tokens", "learned", "epochs"]

WINDOW_PACKS = 512
"""Packs that a window is meant to fill: more fill better, fewer keep reads and the mixture closer together."""
LEAST_PACKS, MOST_DRAWS = 32, 16_384
"""A window fills this many packs however small its sources are, and draws no more records than this."""


@dataclass(frozen=True)
class Planned:
    """A prepared source as the plan knows it."""

    title: str
    index: Index
    weight: float = 1.0
    most_units: int | None = None
    """Units in a sample, at most."""


@dataclass(frozen=True, slots=True)
class Showing:
    """How one sample is shown this time, and what that costs, as planned."""

    tokens: int
    patches: int
    split: bool
    """As four quadrants and the whole."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each image once it is enlarged, or its own; in the order in which the sample shows them."""
    order: tuple[int, ...] | None
    """The order of the sample's units, where they change places."""


@dataclass(frozen=True)
class PackedPlan:
    """The order of training.

    The run is a sequence of draws, each a record with all its pieces. A window is a fixed number of draws, packed on
    its own; the packs of all windows in order, `pack.per_step` at a time, are the steps. To find a step the packs of
    the windows before it are counted; counts are kept, and can be saved, but are only a cache.

    by: what the weights are shares of. Tokens and learned tokens are converted to samples by the exact means of the
        indexes; for `epochs` a source of weight 2 is gone through twice as often as one of weight 1.
    connector: says how many visual tokens an image becomes.
    """

    sources: tuple[Planned, ...]
    pack: PackConfig
    seed: int
    images: ImageConfig
    connector: ConnectorSettings
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    by: Measure = "samples"

    def packs(self, step: int) -> list[list[SampleRef]]:
        """The samples of one step, pack by pack."""
        return [self.pack_of(step, place) for place in range(self.pack.per_step)]

    def pack_of(self, step: int, place: int) -> list[SampleRef]:
        """The samples of one pack of a step."""
        number = step * self.pack.per_step + place
        self.count(number)
        window = bisect_right(self._ends, number)
        return self._window(window).packs[number - (self._ends[window - 1] if window else 0)]

    def step(self, step: int) -> list[SampleRef]:
        """The samples of one step, in order."""
        return [ref for pack in self.packs(step) for ref in pack]

    def digest(self, step: int) -> str:
        """Sixteen hex digits that name what a step trains on."""
        return digest_of(map(str, self.step(step)))

    def name(self, ref: SampleRef) -> str:
        """How messages and lists call a sample."""
        source = self.sources[ref.source]
        units = f", units {ref.start}-{ref.end - 1}" if ref.end - ref.start < source.index.units_E[ref.record] else ""
        return f"{source.title}: {source.index.name(ref.record)}{units}"

    def showing(self, ref: SampleRef, shuffle: bool = False) -> Showing:
        """How a sample is shown. shuffle: whether its record allows another order of its units."""
        entry_E, epoch_E = self._entry(ref.source, ref.record), np.array([ref.epoch])
        costs = self._cutter.shown(entry_E, epoch_E)
        units = range(ref.start, ref.end)
        order = self._augmenter.order((ref.source, ref.record, ref.epoch), ref.start, ref.end) if shuffle else None
        shown = units if order is None else [units[one] for one in order]
        image_at = self._lengths.image_at_E
        unit_I = self._lengths.unit_I[image_at[entry_E[0]] : image_at[entry_E[0] + 1]].tolist()
        numbers = [number for unit in (-1, *shown) for number, own in enumerate(unit_I) if own == unit]
        return Showing(
            int(costs.head_tokens_E[0] + costs.tokens_U[ref.start : ref.end].sum()),
            int(costs.head_patches_E[0] + costs.patches_U[ref.start : ref.end].sum()),
            bool(costs.split_E[0]),
            tuple((int(costs.width_I[number]), int(costs.height_I[number])) for number in numbers),
            order,
        )

    def seed_of_words(self, ref: SampleRef) -> int:
        """What draws the wordings of a sample."""
        return self._augmenter.seed_of_words((ref.source, ref.record, ref.epoch), ref.start)

    def replacements(self, ref: SampleRef, most: int = 64) -> Iterator[SampleRef]:
        """What is tried, in this order, where a sample cannot be read: others of its source that take no more room."""
        place, room = (ref.source, ref.record, ref.epoch), self.showing(ref)
        for attempt in range(most):
            record = self._augmenter.replacement(place, attempt, len(self.sources[ref.source].index))
            pieces = self._cutter.pieces(self._entry(ref.source, record), np.array([ref.epoch]))
            fits = np.flatnonzero((pieces.tokens <= room.tokens) & (pieces.patches <= room.patches))
            if len(fits) and record != ref.record:
                yield SampleRef(ref.source, record, ref.epoch, int(pieces.start[fits[0]]), int(pieces.end[fits[0]]))

    def left_out(self) -> list[str]:
        """The names of all units that are never trained on: see `Cutter.left_out`."""
        return [
            self.name(SampleRef(source, record, 0, unit, unit + 1))
            for source in range(len(self.sources))
            for record, unit in self._cutter.left_out(source)
        ]

    def misfits(self, most: int = 10_000) -> Iterator[str]:
        """A sentence for each source some of whose first `most` records are not trained on, or not whole.

        Raises: DataError for a source of which nothing is.
        """
        for number, source in enumerate(self.sources):
            if out := self._cutter.left_out(number, most=most):
                units = source.index.units_E[:most]
                said = (
                    f"{source.title}: of {units.sum():,} units in {len(units):,} records {len(out):,} do not fit a pack"
                    f" of {self.pack.tokens:,} tokens and {self.pack.patches:,} patches, or teach nothing"
                )
                if len(out) == units.sum():
                    raise DataError(f"{said}; make the packs larger, or leave the source out")
                record, unit = out[0]
                yield f"{said}; they are left out, {self.name(SampleRef(number, record, 0, unit, unit + 1))} first"

    def fill(self, window: int) -> tuple[int, int, int]:
        """(tokens, patches, packs) of a window, as planned."""
        made = self._window(window)
        return made.tokens, made.patches, len(made.packs)

    def count(self, number: int) -> None:
        """Count packs up to the run's pack `number`, so that it is found at once."""
        while not self._ends or self._ends[-1] <= number:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._window(len(self._ends)).packs))

    @cached_property
    def draws_per_window(self) -> int:
        """Records drawn for a window: enough for its packs, but no more of a source than it has (if not too few)."""
        shares = self._mixture.shares
        mean = sum(share * tokens for share, (tokens, _) in zip(shares, self._means, strict=True))
        once = min(len(source.index) / share for source, share in zip(self.sources, shares, strict=True))
        wanted, least = (math.ceil(packs * self.pack.tokens / max(1, mean)) for packs in (WINDOW_PACKS, LEAST_PACKS))
        return min(max(min(wanted, math.ceil(once)), least), MOST_DRAWS)

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.augment, self.images, self.seed)

    @cached_property
    def _lengths(self) -> Lengths:
        return Lengths.of([one.index for one in self.sources], [one.most_units for one in self.sources])

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._lengths, self._augmenter, self.pack, self.connector)

    @cached_property
    def _means(self) -> list[tuple[Fraction, Fraction]]:
        """Tokens of a record, visual ones included, and learned tokens, on average over each source and its draws."""
        share = Fraction(str(self._augmenter.split_share))
        means = []
        for index in (source.index for source in self.sources):
            text, learned = (int(one.sum(dtype=np.int64)) for one in (index.tokens_U, index.learned_U))
            text += int(index.head_tokens_E.sum(dtype=np.int64))
            sizes = index.width_I.astype(np.int64), index.height_I.astype(np.int64)
            whole, split = (
                int(image_costs(*sizes, np.full(len(sizes[0]), one), self.images, self.connector)[0].sum())
                for one in (False, True)
            )
            tokens = text + (1 - share) * whole + share * split
            means.append((Fraction(tokens, len(index)), Fraction(max(1, learned), len(index))))
        return means

    @cached_property
    def _mixture(self) -> Mixture:
        weights = [Fraction(str(source.weight)) for source in self.sources]
        if self.by == "epochs":
            weights = [weight * len(source.index) for weight, source in zip(weights, self.sources, strict=True)]
        elif self.by != "samples":
            means = [learned if self.by == "learned" else tokens for tokens, learned in self._means]
            weights = [weight / mean for weight, mean in zip(weights, means, strict=True)]
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

    def _entry(self, source: int, record: int) -> np.ndarray:
        return self._lengths.first_S[source : source + 1] + record

    def _window(self, number: int) -> _Window:
        return remembered(self._kept, number, 2, lambda: self._make_window(number))

    def _make_window(self, number: int) -> _Window:
        """Draw, cut and pack one window, and put its packs in an order drawn by lot."""
        first = number * self.draws_per_window
        source, numbers = self._mixture.draws(first, first + self.draws_per_window)
        record, epoch = np.empty_like(numbers), np.empty_like(numbers)
        for one, order in enumerate(self._orders):
            here = np.flatnonzero(source == one)
            record[here], epoch[here] = order.records_of(numbers[here])
        pieces = self._cutter.pieces(self._lengths.first_S[source] + record, epoch)
        packs = pack_lengths(pieces.tokens, pieces.patches, self.pack)
        if not packs:
            titles = ", ".join(source.title for source in self.sources)
            raise DataError(
                f"{titles}: of {self.draws_per_window} records none fits a pack of {self.pack.tokens} tokens and"
                f" {self.pack.patches} patches with something to learn; make the packs larger"
            )
        lots = hashed(self.seed, PACKS, number, np.arange(len(packs)))
        packs = [packs[one] for one in np.argsort(lots, kind="stable").tolist()]
        laid = np.concatenate(packs)  # pieces in the order of the run
        entry = pieces.entry[laid]
        columns = source[entry], record[entry], epoch[entry], pieces.start[laid], pieces.end[laid]
        refs = list(map(SampleRef, *(column.tolist() for column in columns)))
        bounds = pairwise(accumulate(map(len, packs), initial=0))
        return _Window([refs[a:b] for a, b in bounds], int(pieces.tokens.sum()), int(pieces.patches.sum()))

    @cached_property
    def key(self) -> str:
        """Names everything that the order depends on: settings and lengths."""
        groups = [one.plain() for one in (self.pack, self.images, self.augment, self.connector)]
        sources = [[one.weight, one.most_units] for one in self.sources]
        settings = [groups, sources, self.seed, self.by, WINDOW_PACKS]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for one in self.sources:
            for name in ("shard_E", "group_E", "head_tokens_E", "units_E", "images_E", "tokens_U", "learned_U"):
                digest.update(getattr(one.index, name).tobytes())
            for name in ("unit_I", "width_I", "height_I"):
                digest.update(getattr(one.index, name).tobytes())
        return digest.hexdigest()[:12]

    def save_counts(self, path: str | Path) -> None:
        """Keep how many packs the windows counted so far have, so that resuming need not count them again."""
        counts = [end - start for start, end in pairwise([0, *self._ends])]
        write_json(path, {"plan": self.key, "packs": counts})

    def load_counts(self, path: str | Path) -> None:
        """Read what `save_counts` wrote, if it is there, whole, and of this plan; without it all is counted again."""
        try:
            found = read_json(path)
            counts = [int(count) for count in found["packs"]] if found["plan"] == self.key else []
        except (DataError, ValueError, KeyError, TypeError, OverflowError):
            return
        if len(counts) > len(self._ends) and min(counts) > 0:
            self._ends[:] = accumulate(counts)


@dataclass(frozen=True)
class _Window:
    """The packs of a window, and what they hold together."""

    packs: list[list[SampleRef]]
    tokens: int
    patches: int
