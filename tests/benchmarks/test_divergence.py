"""The script on divergence runs from end to end, and trains no cell twice."""

from __future__ import annotations

import pytest

from benchmarks import divergence

SMALL = [
    "--steps", "2", "--lrs", "1e-3", "--seeds", "0", "--override",
    "stages.0.sources.0.path=builtin:validation/interleaved", "stages.0.sources.1.path=builtin:validation/pairs",
    "stages.0.pack={tokens: 256, patches: 512, packs_per_step: 1}",
]  # fmt: skip


def test_cells_are_trained_once_and_told(tmp_path, monkeypatch):
    results = tmp_path / "rows.jsonl"
    command = ["--folder", str(tmp_path / "runs"), "--results", str(results), *SMALL]
    divergence.main(command)
    rows = divergence.read_rows(results)
    assert [row["cell"]["mode"] for row in rows] == ["frozen", "lora", "full"]
    assert all(len(row["losses"]) == row["finished_steps"] == 2 and not row["not_finite"] for row in rows)
    assert len({row["losses"][0] for row in rows}) == 1, "cells start alike"
    assert len({row["losses"][1] for row in rows}) == 3, "and train otherwise"
    monkeypatch.setattr(divergence, "train_cell", lambda *_: pytest.fail("trained again"))
    divergence.main(command)
    divergence.main([*command, "--judge"])
    assert divergence.read_rows(results) == rows


def test_the_rows_that_are_shipped_say_what_the_monitor_says_today():
    rows = divergence.read_rows(divergence.RESULTS)
    assert [row["rise"] for row in rows] == [divergence.rise(row["losses"]) for row in rows]
    risen = {(row["cell"]["mode"], row["cell"]["lr"]) for row in rows if row["rise"]}
    assert risen == {("full", 0.03), ("lora", 0.03)}, "and no cell that learned well is among them"
