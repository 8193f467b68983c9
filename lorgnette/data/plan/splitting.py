"""Splitting of records that are longer than a pack, and the cost of each of their parts in tokens and patches.

Shape suffixes of the arrays: E entries (the records of all sources in order, or a selection of them), U the units of
all entries, concatenated, I the images of all entries, concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorgnette.data.config import PackConfig
from lorgnette.data.index import Index, starts_of
from lorgnette.data.plan.augment import Augmenter, image_costs
from lorgnette.model.configs.connector_settings import ConnectorSettings

ANY_NUMBER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Lengths:
    """The concatenated indexes of a stage's sources: the lengths that the order of training depends on."""

    first_S: np.ndarray
    """First entry of each source, then the number of entries: one more value than there are sources."""
    source_E: np.ndarray
    most_units_E: np.ndarray
    """Most units in a piece."""
    prefix_tokens_E: np.ndarray
    unit_at_E: np.ndarray
    """Offset of each entry's units in the arrays over U, then the total: one more value than there are entries."""
    image_at_E: np.ndarray
    tokens_U: np.ndarray
    supervised_U: np.ndarray
    unit_I: np.ndarray
    width_I: np.ndarray
    height_I: np.ndarray

    @classmethod
    def of(cls, indexes: Sequence[Index], most_units: Sequence[int | None]) -> Lengths:
        """Concatenate indexes. most_units: most units in a piece of each source; None for no limit."""

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(index, name) for index in indexes])

        sizes = [len(index) for index in indexes]
        most = [ANY_NUMBER if one is None else one for one in most_units]
        return cls(
            starts_of(np.array(sizes)),
            np.repeat(np.arange(len(indexes)), sizes),
            np.repeat(np.array(most, dtype=np.int64), sizes),
            joined("prefix_tokens_E"),
            starts_of(joined("units_E")),
            starts_of(joined("images_E")),
            joined("tokens_U"),
            joined("supervised_U"),
            joined("unit_I"),
            joined("width_I"),
            joined("height_I"),
        )

    def __len__(self) -> int:
        return len(self.source_E)


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of the prefix and the units of some entries, augmentation included: tokens (with visual ones) and patches.

    All arrays are int64 but for the two that are bool.
    """

    prefix_tokens_E: np.ndarray
    prefix_patches_E: np.ndarray
    unit_at_E: np.ndarray
    tokens_U: np.ndarray
    patches_U: np.ndarray
    supervised_U: np.ndarray
    oversized_U: np.ndarray
    """True where a unit is too long for a pack even with the prefix alone (bool)."""
    split_E: np.ndarray
    width_I: np.ndarray
    """Size of each image in pixels, after augmentation."""
    height_I: np.ndarray


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of records: consecutive units that become one sample. All arrays have one value a piece (int64)."""

    entry: np.ndarray
    """Index among the requested entries."""
    start: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    patches: np.ndarray
    supervised_tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class RecordSplitter:
    """Computes the costs of a stage's records and cuts them into pieces.

    connector: gives the number of visual tokens of an image.
    """

    lengths: Lengths
    augmenter: Augmenter
    pack: PackConfig
    connector: ConnectorSettings

    def pieces(self, entry_E: np.ndarray, epoch_E: np.ndarray) -> Pieces:
        """Cut the entries, as augmented in these epochs, into pieces that fit a pack. Their order has no meaning.

        Greedy: a piece takes units while they fit. Units that fit no pack, and pieces without supervised tokens, are
        left out; `left_out` lists them.
        """
        costs = self.shown(entry_E, epoch_E)
        tokens, patches, supervised_tokens = (
            starts_of(one) for one in (costs.tokens_U, costs.patches_U, costs.supervised_U)
        )
        oversized = np.flatnonzero(costs.oversized_U)
        next_oversized = np.append(oversized, ANY_NUMBER)
        most_units = self.lengths.most_units_E[entry_E]
        at, stop, entry = costs.unit_at_E[:-1], costs.unit_at_E[1:], np.arange(len(entry_E))
        found = []
        while len(at):  # one piece of each entry in every round
            prefix_tokens, prefix_patches = costs.prefix_tokens_E[entry], costs.prefix_patches_E[entry]
            end = np.searchsorted(tokens, tokens[at] + (self.pack.tokens - prefix_tokens), side="right") - 1
            most = np.searchsorted(patches, patches[at] + (self.pack.patches - prefix_patches), side="right") - 1
            end = np.minimum(np.minimum(end, most), np.minimum(stop, next_oversized[np.searchsorted(oversized, at)]))
            end = np.maximum(np.minimum(end, at + np.minimum(most_units[entry], stop - at)), at)
            first = costs.unit_at_E[entry]
            spent = prefix_tokens + tokens[end] - tokens[at], prefix_patches + patches[end] - patches[at]
            made = np.stack([entry, at - first, end - first, *spent, supervised_tokens[end] - supervised_tokens[at]])
            found.append(made[:, made[5] > 0])
            at = np.maximum(end, at + 1)  # past a unit that is left out
            left = at < stop
            at, stop, entry = at[left], stop[left], entry[left]
        return Pieces(*np.concatenate([np.empty((6, 0), dtype=np.int64), *found], axis=1))

    def shown(self, entry_E: np.ndarray, epoch_E: np.ndarray) -> Costs:
        """Cost of the entries as augmented in these epochs.

        Augmentation is dropped for an entry if it would make a unit too large for a pack.
        """
        costs = self.costs(entry_E, epoch_E, np.ones(len(entry_E), dtype=bool))
        if not costs.oversized_U.any():
            return costs
        oversized = starts_of(costs.oversized_U)[costs.unit_at_E]
        return self.costs(entry_E, epoch_E, oversized[1:] == oversized[:-1])

    def costs(self, entry_E: np.ndarray, epoch_E: np.ndarray, varied_E: np.ndarray) -> Costs:
        """Cost of the parts of the entries; without augmentation where `varied_E` is False.

        An image costs its visual tokens and the boundary tokens that `inputs.render` writes around it. Adjacent images
        share a boundary token, but the index does not say which images are adjacent: this is an upper bound, and n
        images may cost up to n - 1 tokens less.
        """
        known, augmenter = self.lengths, self.augmenter
        unit_at_E, at_U = _runs(known.unit_at_E, entry_E)
        image_at_E, at_I = _runs(known.image_at_E, entry_E)
        owner_I = np.repeat(np.arange(len(entry_E)), np.diff(image_at_E))
        source_E = known.source_E[entry_E]
        place_E = source_E, entry_E - known.first_S[source_E], epoch_E
        split_E = np.where(varied_E, augmenter.split(*place_E), augmenter.images.split)
        width_I, height_I = known.width_I[at_I].astype(np.int64), known.height_I[at_I].astype(np.int64)
        number_I = np.arange(len(at_I)) - image_at_E[owner_I]
        wide_I, high_I = augmenter.enlarged((*(one[owner_I] for one in place_E), number_I), width_I, height_I)
        width_I, height_I = (np.where(varied_E[owner_I], *pair) for pair in ((wide_I, width_I), (high_I, height_I)))
        split_I = split_E[owner_I]
        tokens_I, patches_I = image_costs(width_I, height_I, split_I, augmenter.images, self.connector)
        unit_I = known.unit_I[at_I]
        # One bin for each prefix, then one for each unit.
        bin_I = np.where(unit_I < 0, owner_I, len(entry_E) + unit_at_E[owner_I] + unit_I)
        bins = len(entry_E) + len(at_U)
        image_tokens, patches = (np.bincount(bin_I, one, bins).astype(np.int64) for one in (tokens_I, patches_I))
        prefix_tokens_E = image_tokens[: len(entry_E)] + known.prefix_tokens_E[entry_E]
        tokens_U = image_tokens[len(entry_E) :] + known.tokens_U[at_U]
        prefix_patches_E, patches_U = patches[: len(entry_E)], patches[len(entry_E) :]
        owner_U = np.repeat(np.arange(len(entry_E)), np.diff(unit_at_E))
        too_long_U = tokens_U + prefix_tokens_E[owner_U] > self.pack.tokens
        oversized_U = too_long_U | (patches_U + prefix_patches_E[owner_U] > self.pack.patches)
        supervised_U = known.supervised_U[at_U].astype(np.int64)
        sizes = width_I, height_I
        return Costs(
            prefix_tokens_E,
            prefix_patches_E,
            unit_at_E,
            tokens_U,
            patches_U,
            supervised_U,
            oversized_U,
            split_E,
            *sizes,
        )

    def left_out(self, source: int, at_once: int = 10_000, most: int | None = None) -> list[tuple[int, int]]:
        """(record, unit) of every unit of a source that is in no piece of the first epoch.

        Such a unit is too large for a pack, or its piece would have no supervised tokens.
        most: number of records to examine, from the first; None for all.
        """
        first, end = self.lengths.first_S[source : source + 2].tolist()
        end = end if most is None else min(end, first + most)
        found = []
        for low in range(first, end, at_once):
            entry_E = np.arange(low, min(low + at_once, end))
            pieces = self.pieces(entry_E, np.zeros_like(entry_E))
            unit_at_E = self.lengths.unit_at_E[low : entry_E[-1] + 2] - self.lengths.unit_at_E[low]
            edges = np.zeros(unit_at_E[-1] + 1, dtype=np.int64)
            np.add.at(edges, unit_at_E[pieces.entry] + pieces.start, 1)
            np.add.at(edges, unit_at_E[pieces.entry] + pieces.end, -1)
            missing = np.flatnonzero(np.cumsum(edges)[:-1] == 0)
            owner = np.searchsorted(unit_at_E, missing, side="right") - 1
            found += list(zip((owner + low - first).tolist(), (missing - unit_at_E[owner]).tolist(), strict=True))
        return found


def _runs(starts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the chosen runs once concatenated, and the indices of their elements."""
    begin = starts[chosen]
    new = starts_of(starts[chosen + 1] - begin)
    return new, np.arange(new[-1]) + np.repeat(begin - new[:-1], np.diff(new))
