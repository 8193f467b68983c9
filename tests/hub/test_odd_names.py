"""Folders of any name are exported to, opened and shown."""

from __future__ import annotations

import os

import pytest

from lorgnette.hub.describe import describe
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from tests.hub.tiny import tiny_model, tiny_processor

NAMES = ["bad\udcff\udcfe", "[bold]x[bold]", "*?[a-z]", "two\nlines", "-dash", "%41 :smile:", "x" * 240, "~"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_model_lives_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name / "model"
    export(tiny_model(), tiny_processor(), folder)
    model, processor = load(folder)
    assert model.config == tiny_model().config and processor.tokenizer.vocabulary
    assert os.listdir(tmp_path) == [name]
    assert describe(str(folder))


def test_output_to_a_full_disk_is_one_sentence():
    import subprocess
    import sys

    command = [sys.executable, "-m", "lorgnette.cli", "eval", "tasks"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and ended.stderr == "lorgnette: standard output: No space left on device\n"
