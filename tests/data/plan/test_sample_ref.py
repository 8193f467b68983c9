"""The order of training: pure, exact in its mixture, and a permutation of each source in each epoch."""

import time
from collections import Counter

import pytest

from lorgnette.data.plan.sample_ref import Plan, SampleRef

MIXTURES = [
    ((10,), (1.0,)),
    ((10, 7), (0.7, 0.3)),
    ((None, 5), (2.0, 1.0)),
    ((3, 4, 5, 6), (0.1, 0.2, 0.3, 0.4)),
    ((50, 50, None), (1, 1, 1)),
    ((7, 1000), (0.01, 0.99)),
]


@pytest.mark.parametrize(("sizes", "weights"), MIXTURES)
@pytest.mark.parametrize("samples_per_step", [1, 3, 16])
def test_cutting_in_steps_changes_nothing(sizes, weights, samples_per_step):
    total = 240
    whole = Plan(sizes, weights, total, seed=3).step(0)
    plan = Plan(sizes, weights, samples_per_step, seed=3)
    cut = [ref for step in range(total // samples_per_step) for ref in plan.step(step)]
    assert cut == whole


@pytest.mark.parametrize(("sizes", "weights"), MIXTURES)
def test_each_source_keeps_its_share_at_every_moment(sizes, weights):
    refs = Plan(sizes, weights, 1000, seed=0).step(0)
    counts = Counter()
    for number, ref in enumerate(refs, 1):
        counts[ref.source] += 1
        for source, weight in enumerate(weights):
            assert abs(counts[source] - number * weight / sum(weights)) <= max(1.0, len(weights) / 2)


@pytest.mark.parametrize(("sizes", "weights"), MIXTURES)
def test_each_epoch_of_a_source_is_a_permutation(sizes, weights):
    refs = Plan(sizes, weights, 2000, seed=1).step(0)
    for source, size in enumerate(sizes):
        mine = [ref for ref in refs if ref.source == source]
        if size is None:
            assert [ref.record for ref in mine] == list(range(len(mine)))
            continue
        for epoch in range(len(mine) // size):
            part = mine[epoch * size : (epoch + 1) * size]
            assert sorted(ref.record for ref in part) == list(range(size))
            assert {ref.epoch for ref in part} == {epoch}


def test_epochs_and_seeds_differ():
    def orders(seed: int) -> list[int]:
        return [ref.record for ref in Plan((50,), (1.0,), 100, seed).step(0)]

    assert orders(0)[:50] != orders(0)[50:]
    assert orders(0) != orders(1)


def test_digest_names_the_step():
    plan = Plan((100, 100), (1, 2), 8, seed=0)
    assert plan.digest(5) == Plan((100, 100), (1, 2), 8, seed=0).digest(5) != plan.digest(6)


def test_a_far_step_is_as_near_as_the_first():
    plan = Plan((None, None, None), (0.5, 0.3, 0.2), 64, seed=0)
    start = time.perf_counter()
    refs = plan.step(10**9)
    assert time.perf_counter() - start < 1.0
    assert len(refs) == 64 and refs[0] > SampleRef(0, 0, 0)
