"""The calibration of the studies' measure runs from end to end, and goes on where it was stopped."""

from __future__ import annotations

import json

import pytest

from benchmarks import calibrate_measure
from lorgnette.train import loop

PACK = "{tokens: 256, patches: 512, packs_per_step: 1, samples: 4}"
SMALL = ["stages.0.sources=[{kind: pairs, path: 'builtin:validation/pairs'}]",
         "stages.1.sources=[{kind: instruct, path: 'builtin:validation/instruct'}]",
         f"stages.0.pack={PACK}", f"stages.1.pack={PACK}", "images.longest=64",
         "validation.sources=[{kind: pairs, path: 'builtin:validation/pairs'}]"]  # fmt: skip


def test_every_measure_of_both_ways_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate_measure, "HELDOUT", 2)
    results = tmp_path / "rows.jsonl"
    command = ["--seeds", "1", "--questions", "2", "--steps", "2", "--folder", str(tmp_path / "runs")]
    command += ["--results", str(results), "--override", *SMALL]
    calibrate_measure.main(command)
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    measures = {"scene_vqa", "text_vqa", "knowledge_vqa", "scene_captions", "score", "gain", "loss", "loss_gain"}
    for way in ("few-shot", "probe"):
        assert {row["measure"] for row in rows if row["way"] == way} == measures
    assert all(len(row["lora"]) == len(row["frozen"]) == 1 for row in rows)
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    calibrate_measure.main(command)


def test_the_separation_is_the_mean_over_the_spread_of_the_seeds():
    row = calibrate_measure.separation("probe", "score", [40.0, 42.0], [30.0, 34.0])
    assert row["difference"] == 9.0 and row["separation"] == pytest.approx(9.0 / 2**0.5)
