"""The benchmark of training runs end to end at a tiny size, and both sides do the same work."""

from __future__ import annotations

import importlib
import json
import pickle
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


@pytest.mark.parametrize(("data", "adapters"), [("stage2", "lora"), ("instruct", "dora")])
def test_throughput(train, tmp_path, data, adapters) -> None:
    row = train.main([*TINY, "--data", data, "--results", str(tmp_path)])
    assert json.loads((tmp_path / "train.jsonl").read_text()) == row
    ours, theirs = row["ours"], row["theirs"]
    assert row["adapters"] == adapters
    assert ours["learned"] == theirs["learned"] > 0
    assert row["first_loss_gap"] < 1e-5 * ours["losses"][0]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=0.05)  # theirs does not train the new rows of tokens
    assert list(row["cpu_speedups"]) == ["all", "4"]
    assert row["cpu_speedups"]["all"] == row["cpu_speedup"] >= row["least_cpu_speedup"]


def test_split_images_are_shown_to_both_sides(train, tmp_path) -> None:
    options = train.parser().parse_args([*TINY, "--data", "instruct"])
    train.write_model(tmp_path, options)
    train.write_samples(tmp_path, train.our_run(tmp_path, options))
    samples = [one for step in pickle.loads((tmp_path / "samples.pickle").read_bytes()) for one in step]
    crops = [one["text"].count("<image>") for one in samples]
    assert crops == [len(one["images"]) for one in samples]
    assert min(crops) < 5 <= max(crops), "some are split, some are not"


def test_memory(train, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train, "VOCABULARIES", (16384, 65536))
    row = train.main([*TINY, "--memory", "--results", str(tmp_path)])
    small, large = (row["bytes"]["ours"][rows] for rows in (16384, 65536))
    assert large["parameters"] - small["parameters"] == 4 * 128 * (65536 - 16384)
    assert row["activations_growth"]["ours"] < 1.1 < row["activations_growth"]["4"]
