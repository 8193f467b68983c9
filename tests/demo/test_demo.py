from __future__ import annotations

import io

import pytest
from rich.console import Console

from lorgnette.demo.demo import run_demo
from lorgnette.errors import SettingsError


def test_a_stage_that_could_not_begin_is_found_before_anything_is_measured(tmp_path):
    wrong = ["stages.3.language.mode=frozen", "threads=1"]
    with pytest.raises(SettingsError, match="stage 'chat': every part is frozen"):
        run_demo(tmp_path / "run", overrides=wrong, console=Console(file=io.StringIO()))
    assert not (tmp_path / "run" / "eval").exists()
