"""A run with every connector: packs of a prepared source and samples on demand, checkpoint, dry run and reopening."""

from __future__ import annotations

import pytest
from rich.console import Console

from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.hub.export import save
from lorgnette.hub.load import load
from lorgnette.run import Run
from lorgnette.train.data import build_data
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.planner import dry_run
from lorgnette.train.setup import build_processor
from tests.data.squares import row, write

CONNECTORS = {"linear": {"kind": "linear"}, "pixel shuffle": {"kind": "pixel_shuffle", "side": 2}}


@pytest.fixture
def run_with(tiny, tmp_path):
    """The tiny run with another connector, its first stage on packs that are split and enlarged."""

    def make(connector: dict) -> Run:
        folder = write(tmp_path / "data", [row(number) for number in range(30)])
        values = tiny.plain()
        values["model"]["connector"] = connector
        source = {"kind": "instruct", "path": str(folder), "most_turns": 3}
        pack = {"tokens": 300, "patches": 400, "packs_per_step": 2}
        augment = {"split": 0.3, "upscale": 0.3}
        values["stages"][0] |= {"sources": [source], "pack": pack, "steps": 6, "augment": augment}
        values["stages"][1] |= {"steps": 3}
        return Run.parse(values)

    return make


@pytest.mark.parametrize("connector", CONNECTORS.values(), ids=CONNECTORS)
def test_it_trains_on_packs_as_planned_and_comes_back(run_with, tmp_path, connector):
    run = run_with(connector)
    trainer = Trainer(run, tmp_path / "run", Console(quiet=True))
    save(trainer.train(), trainer.processor, tmp_path / "run" / "model")
    rows = [one for one in read_log(tmp_path / "run" / "log.jsonl") if "loss" in one]
    assert len(rows) == 9 and rows[8]["loss"] < rows[0]["loss"]
    model, processor = load(tmp_path / "run" / "model")
    assert model.config.connector.plain() == connector and processor.connector.plain() == connector


@pytest.mark.parametrize("connector", CONNECTORS.values(), ids=CONNECTORS)
def test_samples_cost_what_the_plan_counts(run_with, connector):
    run = run_with(connector)
    steps = build_data(run, 0, build_processor(run))
    assert isinstance(steps, BatchBuilder)
    for ref in [ref for step in range(4) for ref in steps.plan.step(step)]:
        drawn, view = steps.read(ref), steps.plan.view(ref, shuffle=True)
        assert drawn.shape == (view.patches, view.tokens)


@pytest.mark.parametrize("connector", CONNECTORS.values(), ids=CONNECTORS)
def test_a_dry_run_estimates_it(run_with, connector, capsys):
    run = run_with(connector)
    dry_run.dry_run(run, Console())
    assert "connector" in capsys.readouterr().out
