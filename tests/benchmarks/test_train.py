"""The benchmark of training runs end to end at a tiny size, and both sides do the same work."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TINY = ["--size", "tiny", "--threads", "1", "--steps", "2"]


@pytest.fixture
def train(monkeypatch) -> ModuleType:
    """The script, its sides measured in this process."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("train")
    monkeypatch.setattr(module, "run_side", module.measure)
    return module


def test_throughput(train, tmp_path) -> None:
    row = train.main([*TINY, "--results", str(tmp_path)])
    assert json.loads((tmp_path / "train.jsonl").read_text()) == row
    ours, theirs = row["ours"], row["theirs"]
    assert ours["learned"] == theirs["learned"] > 0
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=0.05)  # theirs does not train the new rows of tokens
    assert list(row["cpu_speedups"]) == ["all", "4"]
    assert row["cpu_speedups"]["all"] == row["cpu_speedup"] >= row["least_cpu_speedup"]


def test_memory(train, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train, "VOCABULARIES", (2048, 8192))
    row = train.main([*TINY, "--memory", "--results", str(tmp_path)])
    small, large = (row["bytes"]["ours"][rows] for rows in (2048, 8192))
    assert large["parameters"] - small["parameters"] == 4 * 128 * (8192 - 2048)
    assert row["activations_growth"]["ours"] < 1.1 < row["activations_growth"]["4"]
