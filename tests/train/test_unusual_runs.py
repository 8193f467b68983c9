"""Runs that others have met as faults: each trains or is refused by name."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from rich.console import Console

from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer

QUIET = Console(quiet=True)


def losses(run, folder) -> list[float]:
    Trainer(run, folder, QUIET).train()
    return [row["loss"] for row in read_log(folder / "log.jsonl")]


def test_a_warm_up_longer_than_the_run(short, tmp_path):
    found = losses(short.override("stages.0.warmup=50"), tmp_path)
    rows = read_log(tmp_path / "log.jsonl")
    assert len(found) == 5 and all(map(math.isfinite, found))
    assert [row["lr"] for row in rows] == pytest.approx([0.003 * step / 50 for step in range(1, 6)])


@pytest.mark.parametrize("rows", ["one sample", "no images"])
def test_small_sources_train(short, squares, tmp_path, rows):
    content = "Say green." if rows == "no images" else [{"type": "image", "path": "0.png"}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "green"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    shutil.copy(squares / "0.png", tmp_path)
    found = losses(short.override(f"stages.0.sources.0.path={tmp_path / 'rows.jsonl'}"), tmp_path / "run")
    assert len(found) == 5 and found[-1] < found[0]


def test_a_weight_of_zero_is_refused(short):
    with pytest.raises(SettingsError, match=r"stages\.0\.sources\.0.*weight"):
        short.override("stages.0.sources.0.weight=0")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(short, tmp_path):
    with pytest.raises(LorgnetteError, match=r"rows\.jsonl"):
        losses(short.override("stages.0.lr=1e30", "stages.0.warmup=0"), tmp_path)


@pytest.mark.parametrize("count", [2, 4])
def test_losses_are_those_of_any_number_of_micro_batches(short, tmp_path, count):
    """Over all supervised tokens of a step, not a mean of means (first losses and norms, before rounding grows)."""
    whole, cut = (
        (losses(short.override(f"stages.0.micro_batches={number}"), tmp_path / str(number)), tmp_path / str(number))
        for number in (1, count)
    )
    assert cut[0] == pytest.approx(whole[0], rel=1e-3)
    norms = [[row["grad_norm"] for row in read_log(folder / "log.jsonl")] for _, folder in (whole, cut)]
    assert norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
