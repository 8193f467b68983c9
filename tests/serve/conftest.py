"""One server for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.running import Running, running


@pytest.fixture(scope="session")
def tiny() -> Iterator[Running]:
    with running() as server:
        yield server
