"""Options of `lorgnette serve` reach the settings that they are named after."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.serve.config import ServeConfig

OPTIONS: dict[str, tuple[str, str, Any]] = {
    "--max-running": ("3", "max_running", 3),
    "--max-waiting": ("5", "max_waiting", 5),
    "--queue-seconds": ("600", "queue_seconds", 600.0),
    "--kv-mib": ("7", "kv_bytes", 7 * 2**20),
    "--image-kv-mib": ("9", "image_kv_bytes", 9 * 2**20),
    "--image-cache-mib": ("11", "image_bytes", 11 * 2**20),
    "--max-images": ("2", "max_images", 2),
    "--drain-seconds": ("4", "drain_seconds", 4.0),
    "--workers": ("2", "workers", 2),
    "--name": ("mine", "name", "mine"),
    "--host": ("127.0.0.2", "host", "127.0.0.2"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_reaches_its_setting(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    module = sys.modules["lorgnette.cli.serve"]  # the package has a function of that name
    monkeypatch.setattr(module, "_serve", lambda *arguments: given.extend(arguments))
    word, setting, value = OPTIONS[option]
    done = CliRunner().invoke(app, ["serve", "model", option, word])
    assert done.exit_code == 0, done.output
    model, serving, limits, _ = given
    assert model.model == "model" and isinstance(serving, ServeConfig) and isinstance(limits, EngineConfig)
    found = limits if setting in EngineConfig.model_fields else serving
    assert getattr(found, setting) == value
