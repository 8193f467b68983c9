"""The order of training on prepared sources: packs filled by length, a pure function of (settings, indexes, step)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.plan.augment import Augmenter
from lorgnette.data.plan.mixture import Measure, Mixture, PlannedSource, mean_tokens
from lorgnette.data.plan.pack_sequence import WINDOW_PACKS, PackSequence
from lorgnette.data.plan.sample_ref import SampleRef, digest_of
from lorgnette.data.plan.splitting import Lengths, RecordSplitter
from lorgnette.errors import DataError
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.configs.connector_settings import ConnectorSettings

INDEX_ARRAYS = "shard_E group_E prefix_tokens_E units_E images_E tokens_U supervised_U unit_I width_I height_I".split()
"""Arrays of an index that the order depends on."""


@dataclass(frozen=True, slots=True)
class SampleView:
    """One planned view of a sample: its augmentation, and its cost in tokens and patches."""

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
    its own; the packs of all windows in order, `pack.packs_per_step` at a time, are the steps.

    by: the quantity that weights are shares of; see `Mixture.of_sources`.
    connector: says how many visual tokens an image becomes.
    """

    sources: tuple[PlannedSource, ...]
    pack: PackConfig
    seed: int
    images: ImageConfig
    connector: ConnectorSettings
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    by: Measure = "samples"

    def packs(self, step: int) -> list[list[SampleRef]]:
        """The samples of one step, pack by pack."""
        return [self.pack_of(step, place) for place in range(self.pack.packs_per_step)]

    def pack_of(self, step: int, place: int) -> list[SampleRef]:
        """The samples of one pack of a step."""
        return self.sequence.pack(step * self.pack.packs_per_step + place)

    def step(self, step: int) -> list[SampleRef]:
        """The samples of one step, in order."""
        return [ref for pack in self.packs(step) for ref in pack]

    def digest(self, step: int) -> str:
        """Sixteen hex digits that name what a step trains on."""
        return digest_of(map(str, self.step(step)))

    def name(self, ref: SampleRef) -> str:
        """Name of a sample in messages and lists."""
        source = self.sources[ref.source]
        units = f", units {ref.start}-{ref.end - 1}" if ref.end - ref.start < source.index.units_E[ref.record] else ""
        return f"{source.title}: {source.index.name(ref.record)}{units}"

    def view(self, ref: SampleRef, shuffle: bool = False) -> SampleView:
        """Draw the view of a sample. shuffle: whether its record allows another order of its units."""
        entry_E, epoch_E = self._entry(ref.source, ref.record), np.array([ref.epoch])
        costs = self.splitter.shown(entry_E, epoch_E)
        units = range(ref.start, ref.end)
        order = self._augmenter.order((ref.source, ref.record, ref.epoch), ref.start, ref.end) if shuffle else None
        shown = units if order is None else [units[one] for one in order]
        image_at = self._lengths.image_at_E
        unit_I = self._lengths.unit_I[image_at[entry_E[0]] : image_at[entry_E[0] + 1]].tolist()
        numbers = [number for unit in (-1, *shown) for number, own in enumerate(unit_I) if own == unit]
        return SampleView(
            int(costs.prefix_tokens_E[0] + costs.tokens_U[ref.start : ref.end].sum()),
            int(costs.prefix_patches_E[0] + costs.patches_U[ref.start : ref.end].sum()),
            bool(costs.split_E[0]),
            tuple((int(costs.width_I[number]), int(costs.height_I[number])) for number in numbers),
            order,
        )

    def seed_of_words(self, ref: SampleRef) -> int:
        """Seed of the random choice of a sample's prompt template."""
        return self._augmenter.seed_of_words((ref.source, ref.record, ref.epoch), ref.start)

    def replacements(self, ref: SampleRef, most: int = 64) -> Iterator[SampleRef]:
        """Substitutes for a sample that cannot be read, in order: others of its source that take no more room."""
        place, room = (ref.source, ref.record, ref.epoch), self.view(ref)
        for attempt in range(most):
            record = self._augmenter.replacement(place, attempt, len(self.sources[ref.source].index))
            pieces = self.splitter.pieces(self._entry(ref.source, record), np.array([ref.epoch]))
            fits = np.flatnonzero((pieces.tokens <= room.tokens) & (pieces.patches <= room.patches))
            if len(fits) and record != ref.record:
                yield SampleRef(ref.source, record, ref.epoch, int(pieces.start[fits[0]]), int(pieces.end[fits[0]]))

    def left_out(self) -> list[str]:
        """The names of all units that are never trained on: see `RecordSplitter.left_out`."""
        return [
            self.name(SampleRef(source, record, 0, unit, unit + 1))
            for source in range(len(self.sources))
            for record, unit in self.splitter.left_out(source)
        ]

    def oversized(self, most: int = 10_000) -> Iterator[str]:
        """A sentence for each source some of whose first `most` records are not trained on, or not whole.

        Raises: DataError for a source of which nothing is.
        """
        for number, source in enumerate(self.sources):
            if out := self.splitter.left_out(number, most=most):
                units = source.index.units_E[:most]
                said = (
                    f"{source.title}: of {units.sum():,} units in {len(units):,} records {len(out):,} do not fit a pack"
                    f" of {self.pack.tokens:,} tokens and {self.pack.patches:,} patches, or teach nothing"
                )
                if len(out) == units.sum():
                    raise DataError(f"{said}; make the packs larger, or leave the source out")
                record, unit = out[0]
                yield f"{said}; they are left out, {self.name(SampleRef(number, record, 0, unit, unit + 1))} first"

    def save_counts(self, path: str | Path) -> None:
        """Save how many packs each window counted so far has, so that resuming need not count them again."""
        self.sequence.save(path, self.key)

    def load_counts(self, path: str | Path) -> None:
        """Read what `save_counts` wrote, if it is there, whole, and of this plan; without it all is counted again."""
        self.sequence.load(path, self.key)

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.augment, self.images, self.seed)

    @cached_property
    def _lengths(self) -> Lengths:
        return Lengths.of([one.index for one in self.sources], [one.most_units for one in self.sources])

    @cached_property
    def splitter(self) -> RecordSplitter:
        """Costs of records, and their pieces."""
        return RecordSplitter(self._lengths, self._augmenter, self.pack, self.connector)

    @cached_property
    def sequence(self) -> PackSequence:
        """All packs of the run."""
        means = mean_tokens(self.sources, self._augmenter.split_share, self.images, self.connector)
        mixture = Mixture.of_sources(self.sources, self.by, means)
        return PackSequence(self.sources, self.splitter, mixture, means, self.seed)

    def _entry(self, source: int, record: int) -> np.ndarray:
        return self._lengths.first_S[source : source + 1] + record

    @cached_property
    def key(self) -> str:
        """Names everything that the order depends on: settings and lengths."""
        groups = [one.plain() for one in (self.pack, self.images, self.augment, self.connector)]
        sources = [[one.weight, one.most_units] for one in self.sources]
        settings = [groups, sources, self.seed, self.by, WINDOW_PACKS]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for one in self.sources:
            for name in INDEX_ARRAYS:
                digest.update(getattr(one.index, name).tobytes())
        return digest.hexdigest()[:12]
