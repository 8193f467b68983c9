"""Studies of backbones (Tables 1 and 2): one of their cells is a run of Table 3's study, and every cell trains."""

from __future__ import annotations

import pytest
from rich.console import Console

from lorgnette.hub.join import VisionBackbone
from lorgnette.run import Run
from lorgnette.study.cells import jobs_of
from lorgnette.study.config import load_study
from lorgnette.train.loop import Trainer

SHARED = {"t1": "strong", "t2": "siglip"}
"""The cell of each study whose backbones are those of all other studies."""
CELLS = [(name, cell) for name in SHARED for cell in load_study(name).cells]


@pytest.mark.parametrize("name", SHARED)
def test_the_cell_of_the_usual_backbones_is_measured_once_for_all_studies(name):
    keys = {
        (study, job.cell.name, job.seed): job.key
        for study in ("t3", name)
        for job in jobs_of(load_study(study), study, "micro")
    }
    for seed in (1, 2, 3):
        assert keys[name, SHARED[name], seed] == keys["t3", "ca-lora", seed]
    assert len(set(keys.values())) == len(keys) - 3, "no other cell is shared"


@pytest.mark.parametrize(("name", "cell"), CELLS, ids=[f"{name}-{cell.name}" for name, cell in CELLS])
def test_a_cell_builds_and_trains_two_steps(name, cell, tmp_path):
    values = load_study(name).run("micro", cell, 1).plain()
    pack = {"tokens": 256, "patches": 256, "packs_per_step": 1}
    sources = [{"kind": "pairs", "path": "builtin:validation/pairs"}]
    small = values["stages"][0] | {"steps": 2, "pack": pack, "sources": sources}
    run = Run.parse(values | {"stages": [small]})
    trainer = Trainer(run, tmp_path / "run", Console(quiet=True))
    model = trainer.train()
    vision, wanted = model.config.vision, VisionBackbone.open(run.init.vision).config
    assert (vision.width, vision.grid) == (wanted.width, wanted.grid), "no position is resized"
    assert run.images.longest == vision.grid * vision.patch and model.config.fusion != "autoregressive"
