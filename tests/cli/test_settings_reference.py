"""`lorgnette settings`: a group by its path, one setting, the schema, and paths that lead nowhere."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import SettingsError
from lorgnette.run import LoraConfig, Run


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["settings", *arguments])
    if done.exception:
        raise done.exception
    return done.output


def test_a_group_has_its_settings_with_type_default_and_meaning():
    shown = printed("stages.lora")
    assert "rank: whole number; at least 1 (64)" in shown
    assert "Distribution of the first of the two matrices" in shown
    assert all(f"  {name}: " in shown for name in LoraConfig.model_fields)


@pytest.mark.parametrize("path", ["stages.0.lora", "stages.chat.lora", "stages.tune.lora"])
def test_a_stage_may_be_named_or_numbered(path):
    assert printed(path) == printed("stages.lora")


def test_one_setting_and_all():
    assert "alpha" not in printed("stages.lora.rank")
    everything = printed()
    assert everything.startswith("run\n") and all(f"  {name}: " in everything for name in Run.model_fields)
    assert "model.connector (kind: perceiver)" in everything and "stages.sources (kind: chat)" in everything


def test_the_schema_is_json():
    assert json.loads(printed("--schema"))["properties"]["stages"]["items"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("stages.loar", "stages.loar: no such setting; did you mean 'lora'?"),
        ("stagse", "stagse: no such setting; did you mean 'stages'?"),
        ("stages.lora.rnak", "stages.lora.rnak: no such setting; did you mean 'rank'?"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_nearest(path, said):
    with pytest.raises(SettingsError) as refused:
        printed(path)
    assert str(refused.value) == said
