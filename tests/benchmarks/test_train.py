"""The benchmark of training runs end to end at a tiny size, and both sides do the same work."""

from __future__ import annotations

import importlib
import json
import pickle
from pathlib import Path
from types import ModuleType

import pytest

from lorgnette.inputs.image import patchify
from lorgnette.train.data import build_data, stage_processor
from lorgnette.train.setup import build

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
    assert ours["supervised_tokens"] == theirs["supervised_tokens"] > 0
    assert 0 < ours["matmul_share"] < 1.5 and ours["gflops"] > 0
    assert row["first_loss_gap"] < 1e-5 * ours["losses"][0]
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=0.05)  # theirs does not train the new rows of tokens
    assert list(row["cpu_speedups"]) == ["all", "4"]
    assert row["cpu_speedups"]["all"] == row["cpu_speedup"] >= row["least_cpu_speedup"]


def test_both_sides_see_the_same_pixels(train, tmp_path) -> None:
    options = train.parser().parse_args([*TINY, "--data", "instruct"])
    train.write_model(tmp_path, options)
    run = train.our_run(tmp_path, options)
    train.write_samples(tmp_path, run)
    samples = [one for step in pickle.loads((tmp_path / "samples.pickle").read_bytes()) for one in step]
    steps = build_data(run, 0, stage_processor(build(run)[1], run, run.stages[0]))
    ours = [steps.read(ref).rendered for step in range(run.steps) for ref in steps.refs(step, 0)]
    numbers = set()
    for one, rendered in zip(samples, ours, strict=True):
        crops = [crop for picture in one["images"] for crop in picture.crops()]
        assert one["text"].count("<image>") == len(crops) == len(rendered.images)
        numbers.add(len(crops))
        for crop, patches in zip(crops, rendered.images, strict=True):
            assert (patchify(crop, steps.processor.images, crop.size).pixels_PC == patches.pixels_PC).all()
    assert min(numbers) < 5 <= max(numbers), "some are split, some are not"


def test_memory(train, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train, "VOCABULARIES", (16384, 65536))
    row = train.main([*TINY, "--memory", "--results", str(tmp_path)])
    small, large = (row["bytes"]["ours"][rows] for rows in (16384, 65536))
    assert large["parameters"] - small["parameters"] == 4 * 128 * (65536 - 16384)
    assert row["activations_growth"]["ours"] < 1.1 < row["activations_growth"]["4"]


def test_the_stages_add_up_to_the_recipe(train, tmp_path, monkeypatch) -> None:
    recipe = importlib.import_module("train_recipe")
    monkeypatch.setattr(recipe.train, "run_side", train.measure)
    row = recipe.main([*TINY, "--ways", "all", "--results", str(tmp_path)])
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [one["data"] for one in rows] == ["stage1", "stage2", "instruct", "chat", "recipe"]
    times = [200, 200, 300, 50]
    ours = [one["ours"]["cpu_seconds"] * often / 2 for one, often in zip(rows, times, strict=False)]
    theirs = [seconds * one["cpu_speedup"] for seconds, one in zip(ours, rows, strict=False)]
    assert row["cpu_seconds"] == pytest.approx(sum(ours), abs=0.1)
    assert row["cpu_speedup"] == row["least_cpu_speedup"] == pytest.approx(sum(theirs) / sum(ours), abs=0.01)
    assert row["stages"]["chat"] == rows[3]["cpu_speedups"]
