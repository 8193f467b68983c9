"""A run with a source and a connector of another package: trained, recorded, saved and opened again."""

from __future__ import annotations

import json
import sys

import pytest
from rich.console import Console

from lorgnette import plugins
from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.export import export, save
from lorgnette.hub.load import load
from lorgnette.run import Run
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from tests.fable import BOTH, DOTTED


@BOTH
def test_a_source_is_read_and_a_connector_trained_and_opened_again(installed, data, tiny, tmp_path, names):
    values = tiny.plain()
    values["model"]["connector"] = {"kind": names["connectors"]}
    source = {"kind": names["sources"], "path": str(data / "train.parquet"), "question": "Say the colour."}
    pack = {"tokens": 300, "patches": 400, "packs_per_step": 1}
    values["stages"] = [values["stages"][0] | {"sources": [source], "pack": pack, "steps": 2}]
    run = Run.parse(values)
    assert Run.parse(run.plain()) == run and run.stages[0].sources[0].question == "Say the colour."
    folder = tmp_path / "run"
    trainer = Trainer(run, folder, Console(quiet=True))
    before = trainer.model.connector.projection.weight.clone()
    model = trainer.train()
    assert not model.connector.projection.weight.equal(before)
    assert len([row for row in read_log(folder / "log.jsonl") if "loss" in row]) == 2
    assert json.loads((folder / "plugins.json").read_text()) == {
        names["connectors"]: "fable 1.2",
        names["sources"]: "fable 1.2",
    }
    (ledger,) = (data / ".lorgnette").rglob("rejected.jsonl")
    assert json.loads(ledger.read_text().splitlines()[0])["reason"] == "no colour"

    save(model, trainer.processor, folder / "model")
    again, processor = load(folder / "model")
    assert again.config.connector.plain() == {"kind": names["connectors"]} == processor.connector.plain()
    assert all(new.equal(model.get_parameter(name)) for name, new in again.named_parameters())
    with pytest.raises(CheckpointError, match=r"cannot hold connector.kind"):
        export(model, trainer.processor, tmp_path / "theirs")


def test_a_checkpoint_cannot_run_code_that_nobody_named(installed, tiny, tmp_path, monkeypatch):
    values = tiny.plain()
    values["model"]["connector"] = {"kind": DOTTED["connectors"]}
    trainer = Trainer(Run.parse(values), tmp_path / "run", Console(quiet=True))
    save(trainer.model, trainer.processor, tmp_path / "model")
    plugins.forget()
    del sys.modules["fable.connectors"]
    with pytest.raises((SettingsError, CheckpointError), match=f"{plugins.ALLOWED}={DOTTED['connectors']}"):
        load(tmp_path / "model")
    assert "fable.connectors" not in sys.modules
    monkeypatch.setenv(plugins.ALLOWED, f"some.other:Name,{DOTTED['connectors']}")
    assert load(tmp_path / "model")[0].config.connector.kind == DOTTED["connectors"]
