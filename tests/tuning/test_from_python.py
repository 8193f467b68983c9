"""`lorgnette.train` from Python: a room that is a function, data of the program, callbacks, and resuming."""

from __future__ import annotations

import json

import PIL.Image
import pytest

import lorgnette
from lorgnette.errors import SettingsError
from lorgnette.train.checkpoint.unchanged import ChangedDataError
from lorgnette.train.loop import Interrupted
from tests.train.conftest import COLOURS


def rows(count=8):
    for number in range(count):
        picture = PIL.Image.new("RGB", (24 + number, 24), COLOURS[number % 8])
        asked = [{"type": "image", "image": picture}, {"type": "text", "text": "What colour?"}]
        yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": COLOURS[number % 8]}]}


class Watcher(lorgnette.Callback):
    """Keeps the losses of all steps."""

    def __init__(self):
        self.losses = []

    def on_step_end(self, run, state, metrics):
        self.losses.append(metrics.loss)


def test_rows_of_a_program_are_trained_on_and_resumed(short, tmp_path):
    watcher = Watcher()
    model, processor = lorgnette.train(short, rows(), folder=tmp_path / "whole", callbacks=[watcher])
    assert len(watcher.losses) == 5 and (tmp_path / "whole/model").is_dir()
    assert processor.tokenizer.vocabulary == model.config.vocabulary
    with pytest.raises(Interrupted):
        lorgnette.train(short, rows(), folder=tmp_path / "broken", hours=0)
    with pytest.raises(ChangedDataError):
        lorgnette.train(short, rows(7), folder=tmp_path / "broken")
    lorgnette.train(short, rows(), folder=tmp_path / "broken")
    ours, theirs = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("broken", "whole"))
    assert ours == theirs


def test_a_run_is_settings_values_or_a_recipe(short, tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(short.to_yaml())
    for number, run in enumerate((short.plain(), str(path), path)):
        lorgnette.train(run, folder=tmp_path / str(number), overrides=["stages.first.steps=1"])
        assert len((tmp_path / str(number) / "log.jsonl").read_text().splitlines()) == 1
    lorgnette.train(tmp_path / "0", folder=tmp_path / "0")
    with pytest.raises(SettingsError, match="run is a int; give a Run"):
        lorgnette.train(3)
    with pytest.raises(SettingsError, match="stepz: no such setting"):
        lorgnette.train({**short.plain(), "stepz": 1})


def test_the_room_is_a_function_and_stays_a_room():
    import lorgnette.train.loop as loop

    assert callable(lorgnette.train) and lorgnette.train.loop is loop and lorgnette.Trainer is loop.Trainer
    assert json.dumps(sorted(lorgnette.__all__)).count("train") == 1
