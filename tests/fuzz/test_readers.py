"""Whatever is mutated, each reader of untrusted input takes it or refuses it: no traceback, hang, death or flood.

Three hundred seeded inputs each; `python scripts/mutate.py` reads thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.harness import Harness
from tests.fuzz.readers import READERS

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
