"""The mixture keeps its shares at every moment; an epoch of a source is a shuffle that reads few row groups."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorgnette.data.plan.mixture import BUFFER_RECORDS, BlockShuffle, Mixture, remembered
from tests.data.plans import index_of

WEIGHTS = st.lists(st.fractions(Fraction(1, 1000), 1000, max_denominator=1000), min_size=1, max_size=8)


def in_turn(parts: tuple[int, ...], last: int) -> list[tuple[int, int]]:
    """The oracle: every draw with the exact time at which it is due, to 31 binary places, in order."""
    whole = sum(parts)
    due = [
        (math.floor(Fraction((2 * number + 1) * whole, 2 * part) * 2**31), source, number)
        for source, part in enumerate(parts)
        for number in range(last * part // whole + len(parts) + 2)
    ]
    return [(source, number) for _, source, number in sorted(due)[:last]]


@given(WEIGHTS, st.integers(0, 60), st.integers(1, 60))
def test_any_stretch_is_that_of_the_oracle(weights, first, length):
    mixture = Mixture.of(weights)
    source, number = mixture.sample_order(first, first + length)
    assert list(zip(source.tolist(), number.tolist(), strict=True)) == in_turn(mixture.parts, first + length)[first:]


@given(WEIGHTS, st.integers(0, 10**12))
def test_each_source_keeps_its_share_at_every_moment(weights, first):
    mixture = Mixture.of(weights)
    source, number = mixture.sample_order(first, first + 200)
    for one, share in enumerate(mixture.shares):
        mine = source == one
        if not mine.any():
            continue
        before = int(number[mine][0])
        assert number[mine].tolist() == list(range(before, before + mine.sum()))
        ideal = np.array([float(share * moment) for moment in range(first + 1, first + 201)])
        assert np.abs(before + np.cumsum(mine) - ideal).max() <= max(1.0, len(weights) / 2) + 1e-9 * first


@pytest.mark.parametrize("weights", [(1, 2), (0.7, 0.3), (0.45, 0.35, 0.2), (1e-9, 1), (math.pi, math.e, 1e-3)])
def test_counts_of_a_whole_run_are_the_exact_rounding(weights):
    exact = [Fraction(str(weight)) for weight in weights]
    total = 100_000
    source, _ = Mixture.of(exact).sample_order(0, total)
    for one, weight in enumerate(exact):
        assert abs(int((source == one).sum()) - float(weight / sum(exact) * total)) <= max(1.0, len(weights) / 2)


def test_shares_with_large_denominators_are_rounded_and_never_to_nothing():
    mixture = Mixture.of([Fraction(1, 10**12 + 39), Fraction(1)])
    assert mixture.parts[0] == 1 and sum(mixture.parts) <= 2**31
    source, number = mixture.sample_order(10**9, 10**9 + 1000)
    assert (source == 1).sum() >= 999 and len(number) == 1000


GROUPS = [(1, 1), (7, 10), (50, 10), (3000, 100), (5000, 4999), (2500, 1)]


@pytest.mark.parametrize(("records", "group"), GROUPS)
def test_each_epoch_holds_each_record_once_in_another_order(records, group):
    order = BlockShuffle(index_of([[5]] * records, group=group), seed=1, source=0)
    record, epoch = order.records_of(np.arange(2 * records))
    first, second = record[:records], record[records:]
    assert sorted(first) == sorted(second) == list(range(records))
    assert epoch.tolist() == [0] * records + [1] * records
    assert records < 10 or first.tolist() != second.tolist() != sorted(second)


@pytest.mark.parametrize(("records", "group"), GROUPS)
def test_any_part_of_the_order_is_found_alone(records, group):
    index = index_of([[5]] * records, group=group)
    numbers = np.arange(3 * records)
    whole, _ = BlockShuffle(index, seed=2, source=3).records_of(numbers)
    for part in np.array_split(np.random.default_rng(0).permutation(numbers), 7):
        found, _ = BlockShuffle(index, seed=2, source=3).records_of(part)
        assert found.tolist() == whole[part].tolist()


def test_a_stretch_reads_few_row_groups():
    index = index_of([[5]] * 20_000, group=100)
    record, _ = BlockShuffle(index, seed=0, source=0).records_of(np.arange(20_000))
    for first in range(0, 20_000, 500):
        touched = len(set(index.group_E[record[first : first + 500]].tolist()))
        assert touched <= 2 * (BUFFER_RECORDS // 100 + 2)
    neighbours = np.abs(np.diff(record[:1000]))
    assert np.median(neighbours) > 100, "records of one row group stand side by side"


def test_remembered_keeps_the_newest():
    kept: dict[int, str] = {}
    made = []
    for key in (1, 2, 1, 3, 2, 1):
        assert remembered(kept, key, 2, lambda key=key: made.append(key) or str(key)) == str(key)
    assert made == [1, 2, 3, 1] and list(kept) == [3, 1]
