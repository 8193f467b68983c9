"""The corpus that the package carries: its files, their short names, and the verbs that list it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.shipped import SHIPPED_CORPUS, manifest, resolve, shipped_parts
from lorgnette.data.sources.reading.shards import list_shards
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.tasks.builtin import BUILTIN


def test_every_part_has_its_files():
    listed = {part.file(split) for part in shipped_parts().values() for split in SPLITS if part.rows[split]}
    assert listed == manifest()["files"].keys()
    assert listed == {file.relative_to(SHIPPED_CORPUS).as_posix() for file in SHIPPED_CORPUS.rglob("*.parquet")}


def test_a_carried_place_is_read_where_it_lies():
    assert resolve("builtin:train/instruct") == str(SHIPPED_CORPUS / "train/instruct")
    assert resolve("builtin:test/chat/conversations.parquet") == str(SHIPPED_CORPUS / "test/chat/conversations.parquet")
    instruct = sum(part.kind == "instruct" for part in shipped_parts().values())
    assert len(list_shards("builtin:train/instruct")) == instruct


def test_reading_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert list_shards("builtin:validation/pairs") == (str(SHIPPED_CORPUS / "validation/pairs/drawings.parquet"),)
    assert len(list_shards("builtin:")) == len(manifest()["files"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["builtin:train/nothing", "builtin:validation/benchmark", "builtin:train/instr"])
def test_a_place_that_there_is_not_is_named(place):
    with pytest.raises(
        DataError, match=f"{place}: the built-in corpus has no such folder or file; use one of test/ben"
    ):
        resolve(place)


def test_benchmarks_have_the_splits_with_rows():
    splits = next(one.splits for one in BUILTIN if one.name == "scene_vqa")
    assert {split: one.size for split, one in splits.items()} == {"train": 64, "test": 300}
    assert splits["test"].data == "builtin:test/benchmark/scene_vqa.parquet"


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["data", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_command_lists_the_parts():
    said = invoke("builtin")
    assert all(name in said for name in shipped_parts()) and "python -m corpus write" in said


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (["builtin", "out", "--scale", "10"], "python -m corpus write out --scale 10"),
        (["builtin", "out dir", "-p", "what", "--fresh"], "python -m corpus write 'out dir' -p what --fresh"),
        (["fetch"], "python -m corpus fetch"),
        (["fetch", "openmoji", "out"], "python -m corpus fetch openmoji out"),
    ],
)
def test_what_the_generator_does_now_is_refused_with_its_command(given, command):
    with pytest.raises(SettingsError) as refused:
        invoke(*given)
    assert str(refused.value).startswith(f"lorgnette data {given[0]}")
    assert str(refused.value).endswith(f"in a checkout of lorgnette, run: {command}")


def test_the_help_shows_no_verb_that_is_refused():
    assert "fetch" not in invoke("--help") and "builtin" in invoke("--help")
