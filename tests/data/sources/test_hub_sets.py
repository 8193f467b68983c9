"""Data sets by their id on the hub: from its cache, with images behind its links, and refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.config import ChatConfig
from lorgnette.data.detect_kind import detect_kind
from lorgnette.data.prepare import prepare
from lorgnette.data.sources.reading import hub_sets
from lorgnette.data.sources.reading.shards import list_files
from lorgnette.errors import DataError
from tests.data.sources.made import picture
from tests.hub.tiny import tiny_processor

TALK = [
    {"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "A tile."},
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one data set, laid out as huggingface_hub does: a snapshot of links to blobs."""
    home = tmp_path / "hub" / "datasets--someone--tiles"
    commit, blobs = "a" * 40, home / "blobs"
    snapshot = home / "snapshots" / commit
    for folder in (snapshot, blobs, home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    files: dict[str, bytes] = {"a.png": picture(), "train.jsonl": (json.dumps({"messages": TALK}) + "\n").encode()}
    for number, (name, content) in enumerate(files.items()):
        (blobs / f"{number:040d}").write_bytes(content)
        (snapshot / name).symlink_to(blobs / f"{number:040d}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub_sets.fetch_set.cache_clear()
    return snapshot


def test_a_data_set_is_read_from_the_cache(cache: Path) -> None:
    assert detect_kind("someone/tiles") == "chat"
    assert list_files("someone/tiles@main", (".jsonl",)) == (str(cache / "train.jsonl"),)
    source = prepare(ChatConfig(path="someone/tiles"), tiny_processor(), workers=1)
    sample = source.record(0).piece()
    assert sample.text == "What?A tile." and len(sample.images) == 1
    assert not cache.is_relative_to(source.folder) and not source.folder.is_relative_to(cache)


def test_one_that_is_not_there_is_refused_with_what_to_do(cache: Path) -> None:
    said: Any = pytest.raises(DataError, match=r"someone/other: no such file or folder here, and the hub did not give")
    with said:
        list_files("someone/other", ("",))
    with said:
        prepare(ChatConfig(path="someone/other"), tiny_processor())


@pytest.mark.parametrize("path", ["someone/rows.jsonl", "here/rows", "a/b/c", "rows", "hf://datasets/a/b"])
def test_a_name_of_a_file_is_no_id(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not hub_sets.is_hub_set(path)
