"""The soak of the server: three minutes of it, and the figures that it makes of its samples."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("soak")


def test_growth_is_counted_after_the_warm_up(soak: ModuleType) -> None:
    run = soak.Soak(SimpleNamespace(port=0), 1.0, 90.0)
    run.resident = [(second, 10**8 + 10**6 * max(0, 30 - second)) for second in range(0, 30, 5)]
    run.resident += [(second, 2 * 10**8 + 50_000 * second) for second in range(30, 90, 5)]
    assert run.growth() == pytest.approx(3.0), "MB a minute"


def test_every_kind_of_request_is_drawn(soak: ModuleType) -> None:
    load = soak.Load(0)
    good = [json.loads(load.good()) for _ in range(60)]
    assert {bool(one["stream"]) for one in good} == {True, False}
    assert any("response_format" in one for one in good) and any(one.get("n", 1) > 1 for one in good)
    wrong = [load.wrong() for _ in range(60)]
    assert any(b"/etc/passwd" in one for one in wrong)
    with pytest.raises(ValueError):
        [json.loads(one) for one in wrong]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_three_minutes(soak: ModuleType, tmp_path: Path) -> None:
    """The bound on /health is that of a machine which does other work too. In the first minutes caches and the
    allocator still fill, by 4 MB a minute; one kept picture a second would be 8."""
    options = ["--minutes", "3", "--model", "tiny", "--health-ms", "250", "--most-growth", "7"]
    row = soak.main([*options, "--results", str(tmp_path)])
    assert row["failures"] == 0
    assert json.loads((tmp_path / "soak.jsonl").read_text()) == row
    assert {kind.split()[0] for kind in row["replies"]} == {"good", "aborted", "wrong"}
