"""The screen tells the truth: losses are those of the log, the time left stays, a resumed stage says where."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lorgnette.errors import LorgnetteError
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer


def lines(text: str) -> list[tuple[float, float]]:
    """Mean and last loss of each line of a stage."""
    found = [line.split("loss ")[1].split("  ")[0] for line in text.splitlines() if "supervised tokens/s" in line]
    return [(float(one.split(" ")[0]), float(one.split("last ")[1].rstrip(")"))) for one in found]


def test_the_loss_on_the_screen_is_the_mean_since_the_last_line(short, tmp_path):
    run = short.override("stages.first.steps=20")
    screen = io.StringIO()
    Trainer(run, tmp_path, Console(file=screen, width=200)).train()
    losses = [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    shown = lines(screen.getvalue())
    assert len(shown) == 10
    for number, (mean, last) in enumerate(shown):
        pair = losses[2 * number : 2 * number + 2]
        assert mean == pytest.approx(sum(pair) / 2, abs=6e-4) and last == pytest.approx(pair[1], abs=6e-4)


def test_the_time_left_stays_on_a_narrow_terminal(short, tmp_path):
    screen = io.StringIO()
    Trainer(short, tmp_path, Console(file=screen, width=80, force_terminal=True)).train()
    last = [line for line in screen.getvalue().replace("\r", "\n").splitlines() if "5/5" in line][-1]
    assert "0:00:00" in last and "loss" in last


def test_a_resumed_stage_says_where_it_goes_on(short, tmp_path):
    with pytest.raises(LorgnetteError):
        Trainer(short, tmp_path, Console(file=io.StringIO()), limit_s=0).train()
    screen = io.StringIO()
    Trainer(short, tmp_path, Console(file=screen, width=200)).train()
    assert "first: 5 steps; going on after step 1; training" in screen.getvalue()
