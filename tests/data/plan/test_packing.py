"""Packing: every item once, no pack over a limit, and few packs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lengths import cauldron, obelics, plan_of
from lorgnette.data.config import PackConfig
from lorgnette.data.plan.packing import CLASSES, pack_lengths

LIMITS = PackConfig(tokens=100, patches=1000)
ITEMS = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 1000)), max_size=60)


def packed_slowly(items: list[tuple[int, int]]) -> list[list[int]]:
    """The oracle: for each item, the largest first, look at every pack; take the least room, then the lowest class,
    then the pack that got that room last."""
    order = sorted(range(len(items)), key=lambda one: -max(items[one][0] / 100, items[one][1] / 1000))
    step = -(-1000 // CLASSES)
    packs: list[list[int]] = []
    rooms: list[tuple[int, int, int]] = []  # tokens, patches, when it came to be
    for moment, item in enumerate(order):
        tokens, patches = items[item]
        fits = [
            (room, left // step, -when, pack)
            for pack, (room, left, when) in enumerate(rooms)
            if room >= tokens and left // step >= -(-patches // step)
        ]
        if fits:
            pack = min(fits)[-1]
        else:
            pack = len(packs)
            packs.append([])
            rooms.append((100, 1000, moment))
        packs[pack].append(item)
        rooms[pack] = rooms[pack][0] - tokens, rooms[pack][1] - patches, moment
    return packs


@given(ITEMS)
def test_packs_are_those_of_the_oracle(items):
    tokens, patches = (np.array([one[side] for one in items], dtype=np.int64) for side in (0, 1))
    packs = pack_lengths(tokens, patches, LIMITS)
    assert packs == packed_slowly(items)
    assert sorted(item for pack in packs for item in pack) == list(range(len(items)))
    assert all(tokens[pack].sum() <= 100 and patches[pack].sum() <= 1000 for pack in packs)


@given(ITEMS)
def test_no_two_packs_are_less_than_half_full(items):
    tokens, patches = (np.array([one[side] for one in items], dtype=np.int64) for side in (0, 1))
    packs = pack_lengths(tokens, patches, LIMITS)
    slack = 1 / CLASSES  # what a class of patches may hide
    emptiest = sorted(max(tokens[pack].sum() / 100, patches[pack].sum() / 1000 + slack) for pack in packs)[:2]
    assert len(packs) < 2 or emptiest[1] >= 0.5


@pytest.mark.parametrize(("tokens", "patches"), [(101, 0), (1, 1001)])
def test_an_item_larger_than_a_pack_is_refused(tokens, patches):
    with pytest.raises(ValueError, match="larger than a pack"):
        pack_lengths(np.array([tokens]), np.array([patches]), LIMITS)


@pytest.mark.parametrize("make", [obelics, cauldron])
def test_packs_of_public_lengths_are_at_least_97_percent_full(make):
    plan = plan_of(make(20_000))
    windows = [plan.sequence.window(number) for number in range(3)]
    packs = sum(len(window.packs) for window in windows)
    tokens, patches = sum(window.tokens for window in windows), sum(window.patches for window in windows)
    assert packs > 1000
    assert tokens / packs >= 0.97 * plan.pack.tokens
    assert patches / packs <= plan.pack.patches


def test_a_number_of_samples_is_packed_in_order():
    limits = PackConfig(tokens=100, patches=1000, samples=3)
    tokens, patches = np.array([10, 30, 20, 60, 30, 30, 1, 1]), np.array([0, 0, 0, 0, 0, 0, 600, 600])
    assert pack_lengths(tokens, patches, limits) == [[0, 1, 2], [3, 4], [5, 6], [7]]
    assert pack_lengths(tokens[:0], patches[:0], limits) == []
    with pytest.raises(ValueError, match="larger than a pack"):
        pack_lengths(np.array([101]), np.array([0]), limits)
