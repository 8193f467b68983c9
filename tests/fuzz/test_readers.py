"""Whatever is mutated, each reader of untrusted input takes it or refuses it: no traceback, hang, death or flood.

Three hundred seeded inputs each; `python scripts/mutate.py` reads thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.harness import Harness
from tests.fuzz.readers import FAULTY, READERS

COUNT = 300


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness() as running:
        yield running


@pytest.mark.parametrize("reader", READERS)
def test_mutated_inputs_are_taken_or_refused(harness, reader):
    tally = harness.run(reader, COUNT)
    assert sum(tally.counts.values()) == COUNT and not tally.failures, tally.said()
    assert tally.counts["refused"], "mutations that are never refused test nothing"


@pytest.mark.parametrize("fault", FAULTY)
def test_the_harness_finds_each_fault_and_goes_on_behind_it(fault):
    with Harness(most_seconds=0.3 if fault == "hang" else 10.0) as harness:
        tally = harness.run(fault, 2)
        assert (tally.counts[fault], tally.failures) == (2, 2), tally.said()
        assert f"input 0 of seed 0 (2 bytes): {bytes(2)!r}" in tally.said()
