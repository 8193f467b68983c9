"""The model with the lowest validation loss is kept, and is the run's model where that is asked for."""

from __future__ import annotations

import pytest
import torch

from lorgnette.errors import SettingsError
from lorgnette.hub.load import load
from lorgnette.train.checkpoint.best_model import lowest_loss
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer, train


def with_validation(run, source, **more):
    values = run.plain()
    values["stages"][0] |= {"steps": 6, "lr": 0.05, "schedule": "constant", "language": {"mode": "lora"}}
    return type(run).parse(values | {"validation": {"every": 1, "sources": [source], "keep_best": True, **more}})


def test_the_best_by_loss_is_the_model(short, tmp_path):
    """With a rate that is too high the last step is not the best; the kept one is, adapters merged."""
    run = with_validation(short, short.plain()["stages"][0]["sources"][0])
    train(run, tmp_path / "run")
    losses = [row["losses"] for row in read_log(tmp_path / "run/validation.jsonl")]
    means = [sum(row.values()) / len(row) for row in losses]
    assert len(means) == 6 and lowest_loss(tmp_path / "run", 7) == min(means)
    ours, best = (dict(load(tmp_path / "run" / name)[0].named_parameters()) for name in ("model", "best"))
    assert all(torch.equal(tensor, best[name]) for name, tensor in ours.items())
    last = Trainer(run.override("validation.keep_best=false"), tmp_path / "run").train()
    same = all(torch.equal(tensor, best[name]) for name, tensor in last.named_parameters())
    assert same == (means[-1] == min(means))


def test_both_bests_in_one_folder_are_refused(short):
    source = short.plain()["stages"][0]["sources"][0]
    with pytest.raises(SettingsError, match=r"validation\.keep_best and evaluation\.keep_best both keep best/"):
        type(short).parse(with_validation(short, source).plain() | {"evaluation": {"every": 2}})


def test_there_is_no_lowest_loss_before_the_first(tmp_path):
    assert lowest_loss(tmp_path, 5) == float("inf")
