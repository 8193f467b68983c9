"""The pages of docs/reference are what the code makes today, and the schema knows every setting of every recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lorgnette.cli.settings_reference import all_groups
from scripts.reference import FOLDER, SCHEMA, pages
from tests.house.source import ROOT

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.fixture(scope="module")
def made():
    return pages()


def test_every_page_is_fresh(made):
    stale = [name for name, text in made.items() if (FOLDER / name).read_text(encoding="utf-8") != text]
    assert not stale, "make them again: make reference"
    assert {path.name for path in FOLDER.iterdir()} == set(made)


def test_every_setting_has_a_row(made):
    page = made["settings.md"] + made["sources.md"]
    missing = [
        f"{group.title}: {name}"
        for group in all_groups()
        for name in group.cls.model_fields
        if f"\n| `{name}` |" not in page and name != "kind"
    ]
    assert not missing


def unknown(values: Any, place: dict[str, Any], defs: dict[str, Any], at: str) -> Iterator[str]:
    """Keys of plain values that no branch of a schema has."""
    branches = [place]
    for one in branches:
        if "$ref" in one:
            branches.append(defs[one["$ref"].rpartition("/")[2]])
        branches += [*one.get("anyOf", ()), *one.get("oneOf", ()), *one.get("allOf", ())]
    if isinstance(values, list):
        items = [one["items"] for one in branches if "items" in one]
        for value in values:
            yield from unknown(value, {"anyOf": items}, defs, at)
    for key, value in values.items() if isinstance(values, dict) else ():
        inner = [one["properties"][key] for one in branches if key in one.get("properties", {})]
        if not inner:
            yield f"{at}{key}"
        else:
            yield from unknown(value, {"anyOf": inner}, defs, f"{at}{key}.")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_schema_knows_a_recipe(made, recipe):
    schema = json.loads(made[SCHEMA])
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert list(unknown(values, schema, schema["$defs"], "")) == []
    assert list(unknown({**values, "stagez": []}, schema, schema["$defs"], "")) == ["stagez"]


def test_the_schema_says_what_settings_mean(made):
    schema = json.loads(made[SCHEMA])
    assert schema["$defs"]["StageConfig"]["properties"]["neftune"]["description"].startswith("NEFTune's alpha")
