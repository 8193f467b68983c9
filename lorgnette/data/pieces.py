"""Pieces: what each part of a record costs in a stage, and where a record is cut that is longer than a pack.

Legend of the arrays: E records chosen, U their units end to end, I their images end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import numpy as np

from lorgnette.data.augment import Augmenter, patch_counts
from lorgnette.data.config import PackConfig
from lorgnette.data.index import Index


@dataclass(frozen=True, eq=False)
class Pieces:
    """Runs of units that become one sample each; all arrays of one length (int64, `split` bool)."""

    record: np.ndarray
    """Which of the records asked for."""
    start: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    patches: np.ndarray
    split: np.ndarray
    plain: np.ndarray
    """Drawn to be split or enlarged, but shown as it is: it would not have fitted."""

    @classmethod
    def joined(cls, parts: list[Pieces]) -> Pieces:
        return cls(*(np.concatenate([getattr(one, field.name) for one in parts]) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Costs:
    """Tokens (visual ones included) and patches of the heads and units of some records (int64)."""

    head_tokens_E: np.ndarray
    head_patches_E: np.ndarray
    starts_E: np.ndarray
    """Where the units of each record begin in the arrays over U, and the end: one more entry than records."""
    tokens_U: np.ndarray
    patches_U: np.ndarray
    learned_U: np.ndarray
    split_E: np.ndarray
    varied_E: np.ndarray
    """Whether anything was drawn that makes the record cost more."""


class Cutter:
    """Costs and cuts of one source's records in one stage.

    index: of the source; number: the source's place in the stage; visual_tokens: what an image or crop becomes;
    most_units: units in a piece, at most; None for any number.
    """

    def __init__(
        self,
        index: Index,
        number: int,
        augmenter: Augmenter,
        pack: PackConfig,
        visual_tokens: int,
        most_units: int | None = None,
    ) -> None:
        self.index, self.number, self.augmenter, self.pack = index, number, augmenter, pack
        self.visual_tokens, self.most_units = visual_tokens, most_units
        self._unit_starts, self._image_starts = index.unit_starts, index.image_starts

    def mean_tokens(self) -> Fraction:
        """Tokens of a record, visual ones included, on average over the source and over the draws."""
        crops = 1 + 4 * Fraction(self.augmenter.split_share)
        text = int(self.index.head_tokens_E.sum(dtype=np.int64) + self.index.tokens_U.sum(dtype=np.int64))
        visual = len(self.index.width_I) * (crops * (self.visual_tokens + 1) + 1)
        return (text + visual) / Fraction(max(1, len(self.index)))

    def mean_learned(self) -> Fraction:
        return Fraction(int(self.index.learned_U.sum(dtype=np.int64)), max(1, len(self.index)))

    def costs(self, record_E: np.ndarray, epoch_E: np.ndarray, plain: bool = False) -> Costs:
        """What the parts of the records cost in these epochs; without their draws if `plain`.

        An image costs its visual tokens and the tokens around it as `inputs.render` writes them. Neighbouring images
        share one of those; which ones do is not in the index, so a record of n images may cost up to n - 1 tokens less.
        """
        index, units_E = self.index, self.index.units_E[record_E].astype(np.int64)
        unit_at = _ragged(self._unit_starts[record_E], units_E)
        images_E = index.images_E[record_E].astype(np.int64)
        image_at = _ragged(self._image_starts[record_E], images_E)
        starts_E = _starts(units_E)
        split_E = np.full(len(record_E), plain and self.augmenter.images.split)
        width_I, height_I = index.width_I[image_at], index.height_I[image_at]
        owner_I = np.repeat(np.arange(len(record_E)), images_E)
        varied_E = np.zeros(len(record_E), dtype=bool)
        if not plain:
            split_E = self.augmenter.split(self.number, record_E, epoch_E)
            wide_I, high_I = self._enlarged(record_E, epoch_E, owner_I, image_at)
            varied_E = split_E.copy()
            varied_E[owner_I[(wide_I != width_I) | (high_I != height_I)]] = True
            width_I, height_I = wide_I, high_I
        split_I = split_E[owner_I]
        tokens_I = np.where(split_I, 5, 1) * (self.visual_tokens + 1) + 1
        patches_I = patch_counts(width_I, height_I, split_I, self.augmenter.images)
        unit_I = index.unit_I[image_at].astype(np.int64)
        in_head_I, place_I = unit_I < 0, starts_E[owner_I] + unit_I
        body_I = ~in_head_I
        many, units = len(record_E), len(unit_at)
        return Costs(
            index.head_tokens_E[record_E] + _summed(owner_I[in_head_I], tokens_I[in_head_I], many),
            _summed(owner_I[in_head_I], patches_I[in_head_I], many),
            starts_E,
            index.tokens_U[unit_at] + _summed(place_I[body_I], tokens_I[body_I], units),
            _summed(place_I[body_I], patches_I[body_I], units),
            index.learned_U[unit_at].astype(np.int64),
            split_E,
            varied_E,
        )

    def _enlarged(
        self, record_E: np.ndarray, epoch_E: np.ndarray, owner_I: np.ndarray, image_at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        records = record_E[owner_I]
        place = (self.number, records, epoch_E[owner_I], image_at - self._image_starts[records])
        return self.augmenter.enlarged(place, self.index.width_I[image_at], self.index.height_I[image_at])

    def pieces(self, record_E: np.ndarray, epoch_E: np.ndarray) -> Pieces:
        """The pieces of the records, in no order that matters; `record` counts within `record_E`.

        A record with a unit that would not fit as drawn is shown without its draws. A unit that does not fit then
        either is left out (`too_long` lists those), and so is a piece from which nothing is learned.
        """
        costs = self.costs(record_E, epoch_E)
        bad_E = self._has_misfit(costs) & costs.varied_E
        here = np.arange(len(record_E))
        if not bad_E.any():
            return self._cut(costs, here, plain=False)
        good, bad = np.flatnonzero(~bad_E), np.flatnonzero(bad_E)
        drawn = self._cut(_chosen(costs, good), good, plain=False)
        return Pieces.joined([drawn, self._cut(self.costs(record_E[bad], epoch_E[bad], plain=True), bad, plain=True)])

    def shown(self, record: int, epoch: int) -> tuple[bool, list[tuple[int, int] | None] | None]:
        """Whether a record is split, and the size to which each of its images is enlarged (None for none of them)."""
        record_E, epoch_E = np.array([record]), np.array([epoch])
        costs = self.costs(record_E, epoch_E)
        if bool(costs.varied_E[0]) and bool(self._has_misfit(costs)[0]):
            return self.augmenter.images.split, None
        image_at = np.arange(self._image_starts[record], self._image_starts[record + 1])
        own = np.stack([self.index.width_I[image_at], self.index.height_I[image_at]])
        sizes = np.stack(self._enlarged(record_E, epoch_E, np.zeros_like(image_at), image_at))
        enlarged = (sizes != own).any(axis=0)
        if not enlarged.any():
            return bool(costs.split_E[0]), None
        pairs = zip(enlarged.tolist(), sizes.T.tolist(), strict=True)
        return bool(costs.split_E[0]), [(size[0], size[1]) if larger else None for larger, size in pairs]

    def images_of(self, record: int, units: Sequence[int]) -> list[int]:
        """The record's images as a sample of these units shows them, by their number: the head's come first."""
        unit_I = self.index.unit_I[self._image_starts[record] : self._image_starts[record + 1]].tolist()
        return [number for unit in (-1, *units) for number, own in enumerate(unit_I) if own == unit]

    def too_long(self) -> tuple[np.ndarray, np.ndarray]:
        """(record, unit) of every unit that fits in no pack, be it alone: they are never trained on."""
        record_E = np.arange(len(self.index))
        costs = self.costs(record_E, np.zeros_like(record_E), plain=True)
        wrong = np.flatnonzero(self._misfits(costs))
        owner = np.searchsorted(costs.starts_E, wrong, side="right") - 1
        return owner, wrong - costs.starts_E[owner]

    def _misfits(self, costs: Costs) -> np.ndarray:
        """Units too long for a pack together with their head."""
        owner_U = np.repeat(np.arange(len(costs.head_tokens_E)), np.diff(costs.starts_E))
        tokens_U = costs.tokens_U + costs.head_tokens_E[owner_U]
        patches_U = costs.patches_U + costs.head_patches_E[owner_U]
        return (tokens_U > self.pack.tokens) | (patches_U > self.pack.patches)

    def _has_misfit(self, costs: Costs) -> np.ndarray:
        counts = _starts(self._misfits(costs))
        return (counts[costs.starts_E[1:]] - counts[costs.starts_E[:-1]]) > 0

    def _cut(self, costs: Costs, numbers: np.ndarray, plain: bool) -> Pieces:
        """Greedy: each piece takes units while they fit. All records are cut at once, a piece of each in every round."""
        tokens, patches, learned = (_starts(one) for one in (costs.tokens_U, costs.patches_U, costs.learned_U))
        misfit = np.flatnonzero(self._misfits(costs))
        blocked = np.concatenate([misfit, [np.iinfo(np.int64).max]])
        at, stop, owner = costs.starts_E[:-1], costs.starts_E[1:], np.arange(len(numbers))
        parts = []
        while True:
            left = at < stop
            at, stop, owner = at[left], stop[left], owner[left]
            if not len(at):
                break
            head_tokens, head_patches = costs.head_tokens_E[owner], costs.head_patches_E[owner]
            end = np.searchsorted(tokens, tokens[at] + self.pack.tokens - head_tokens, side="right") - 1
            most = np.searchsorted(patches, patches[at] + self.pack.patches - head_patches, side="right") - 1
            end = np.minimum(np.minimum(end, most), stop)
            if self.most_units is not None:
                end = np.minimum(end, at + self.most_units)
            end = np.minimum(end, blocked[np.searchsorted(misfit, at)])
            kept = (end > at) & (learned[np.maximum(end, at)] > learned[at])
            one, begin, until = owner[kept], at[kept], end[kept]
            parts.append(
                Pieces(
                    numbers[one],
                    begin - costs.starts_E[one],
                    until - costs.starts_E[one],
                    head_tokens[kept] + tokens[until] - tokens[begin],
                    head_patches[kept] + patches[until] - patches[begin],
                    costs.split_E[one],
                    np.full(len(one), plain),
                )
            )
            at = np.maximum(end, at + 1)  # past a unit that is left out
        empty = np.empty(0, dtype=np.int64)
        parts.append(Pieces(*(empty,) * 5, empty.astype(bool), empty.astype(bool)))
        return Pieces.joined(parts)


def _chosen(costs: Costs, record_E: np.ndarray) -> Costs:
    """The costs of some of the records."""
    units_E = np.diff(costs.starts_E)[record_E]
    at = _ragged(costs.starts_E[record_E], units_E)
    return Costs(
        costs.head_tokens_E[record_E],
        costs.head_patches_E[record_E],
        _starts(units_E),
        costs.tokens_U[at],
        costs.patches_U[at],
        costs.learned_U[at],
        costs.split_E[record_E],
        costs.varied_E[record_E],
    )


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _ragged(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The indices of runs that begin at `starts` and are `counts` long, end to end."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + counts, counts)


def _summed(places: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    return np.bincount(places, weights=values, minlength=length).astype(np.int64)
