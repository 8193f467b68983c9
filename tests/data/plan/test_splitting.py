"""Pieces: what a record costs and where it is cut, held against an oracle that goes unit by unit."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.index import Index
from lorgnette.data.plan.augment import Augmenter
from lorgnette.data.plan.splitting import Lengths, RecordSplitter
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from tests.data.plan.test_augment import patches_of
from tests.data.plans import index_of, made_index, unit_starts

VISUAL = 8
PACK = PackConfig(tokens=512, patches=20_000)
SETTINGS = {
    "plain": (AugmentConfig(), ImageConfig()),
    "split": (AugmentConfig(split=0.5), ImageConfig()),
    "always split": (AugmentConfig(), ImageConfig(split=True)),
    "enlarged": (AugmentConfig(split=0.3, upscale=0.7), ImageConfig()),
}


def splitter_of(*indexes: Index, setting="enlarged", most_units=None, pack=PACK) -> RecordSplitter:
    augment, images = SETTINGS[setting]
    lengths = Lengths.of(indexes, [most_units] * len(indexes))
    return RecordSplitter(lengths, Augmenter(augment, images, 5), pack, PerceiverConfig(latents=VISUAL))


@dataclass
class Slow:
    """One record of one source, costed and cut by plain Python."""

    splitter: RecordSplitter
    index: Index
    source: int
    record: int
    epoch: int

    def part(self, name: str, starts: np.ndarray) -> list[int]:
        return getattr(self.index, name)[starts[self.record] : starts[self.record + 1]].tolist()

    def costs(self, varied: bool) -> dict[int, tuple[int, int]]:
        """Tokens and patches of each unit, the head being -1."""
        index, augmenter = self.index, self.splitter.augmenter
        split = bool(augmenter.split(self.source, self.record, self.epoch)) if varied else augmenter.images.split
        tokens = dict(enumerate(self.part("tokens_U", unit_starts(index))))
        tokens |= {-1: int(index.prefix_tokens_E[self.record])}
        patches = dict.fromkeys(tokens, 0)
        columns = (self.part(name, index.image_starts) for name in ("unit_I", "width_I", "height_I"))
        for number, (unit, width, height) in enumerate(zip(*columns, strict=True)):
            if varied:
                place = (self.source, self.record, self.epoch, number)
                sides = augmenter.enlarged(place, np.array([width]), np.array([height]))
                width, height = (int(side[0]) for side in sides)
            tokens[unit] += (5 if split else 1) * (VISUAL + 1) + 1
            patches[unit] += patches_of(width, height, split, augmenter.images)
        return {unit: (tokens[unit], patches[unit]) for unit in tokens}

    def fits(self, costs, units) -> bool:
        tokens, patches = (sum(costs[unit][side] for unit in (-1, *units)) for side in (0, 1))
        return tokens <= self.splitter.pack.tokens and patches <= self.splitter.pack.patches

    def shown(self) -> dict[int, tuple[int, int]]:
        costs = self.costs(varied=True)
        all_fit = all(self.fits(costs, [unit]) for unit in range(len(costs) - 1))
        return costs if all_fit else self.costs(varied=False)

    def pieces(self, most_units: int | None) -> list[tuple[int, int, int, int, int]]:
        """(start, end, tokens, patches, learned): unit by unit, as long as they fit."""
        costs, supervised = self.shown(), self.part("supervised_U", unit_starts(self.index))
        found, start, units = [], 0, len(costs) - 1
        while start < units:
            end = start
            while (
                end < units
                and (most_units is None or end - start < most_units)
                and self.fits(costs, range(start, end + 1))
            ):
                end += 1
            if sum(supervised[start:end]):
                whole = [sum(costs[unit][side] for unit in (-1, *range(start, end))) for side in (0, 1)]
                found.append((start, end, *whole, sum(supervised[start:end])))
            start = max(end, start + 1)
        return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("most_units", [None, 1, 3])
@pytest.mark.parametrize("tokens", [128, 512])
def test_pieces_are_those_of_the_oracle(setting, most_units, tokens):
    indexes = [made_index(60, seed=1, most_units=9), made_index(40, seed=2)]
    pack = PackConfig(tokens=tokens, patches=20_000)
    splitter = splitter_of(*indexes, setting=setting, most_units=most_units, pack=pack)
    draw = np.random.default_rng(0)
    entries, epochs = draw.integers(0, 100, 150), draw.integers(0, 3, 150)
    pieces = splitter.pieces(entries, epochs)
    columns = (pieces.start, pieces.end, pieces.tokens, pieces.patches, pieces.supervised_tokens)
    for number, (entry, epoch) in enumerate(zip(entries.tolist(), epochs.tolist(), strict=True)):
        source, record = (0, entry) if entry < 60 else (1, entry - 60)
        mine = np.flatnonzero(pieces.entry == number)
        found = sorted(zip(*(column[mine].tolist() for column in columns), strict=True))
        assert found == Slow(splitter, indexes[source], source, record, epoch).pieces(most_units)


@given(st.lists(st.lists(st.integers(0, 600), min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_unit_that_fits_is_in_one_piece_and_the_others_are_listed(records):
    splitter = splitter_of(index_of(records), setting="plain")
    entry = np.arange(len(records))
    pieces = splitter.pieces(entry, np.zeros_like(entry))
    held = [
        (record, unit)
        for record, start, end in zip(pieces.entry.tolist(), pieces.start.tolist(), pieces.end.tolist(), strict=True)
        for unit in range(start, end)
    ]
    out = splitter.left_out(0, at_once=3)
    assert sorted(held + out) == [(record, unit) for record, units in enumerate(records) for unit in range(len(units))]
    for record, unit in out:
        assert records[record][unit] + 2 > PACK.tokens or records[record][unit] == 0


def test_a_piece_from_which_nothing_is_learned_is_listed_as_left_out():
    index = index_of([[10, 20], [10]], supervised=[[0, 0], [4]])
    splitter = splitter_of(index, setting="plain")
    assert splitter.left_out(0) == [(0, 0), (0, 1)]
    assert splitter.pieces(np.arange(2), np.zeros(2, dtype=np.int64)).entry.tolist() == [1]


def test_a_sample_that_would_not_fit_enlarged_or_split_is_shown_as_it_is():
    images = [[(0, 900, 900)] for _ in range(40)]
    index = index_of([[100]] * 40, images)
    pack = PackConfig(tokens=115, patches=20_000)
    pieces = splitter_of(index, setting="split", pack=pack).pieces(np.arange(40), np.zeros(40, dtype=np.int64))
    assert len(pieces.entry) == 40
    assert set(pieces.tokens.tolist()) == {2 + 100 + VISUAL + 2}


def test_no_entries_make_no_pieces():
    pieces = splitter_of(made_index(5)).pieces(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    assert len(pieces.entry) == len(pieces.tokens) == 0
