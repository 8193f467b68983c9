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
    hub_sets._fetched.cache_clear()
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


FILES = [
    "README.md",
    "ai2d/train-00000-of-00002.parquet",
    "ai2d/test-0.parquet",
    "clevr/train-0.parquet",
    "trainee.csv",
]
CARD = """---
license: mit
configs:
- config_name: small
  data_files:
  - {split: train, path: "ai2d/train-*"}
  - {split: held, path: ["clevr/*", "ai2d/test-*"]}
- config_name: all
  data_files: "trainee.csv"
---
# A card
"""
PARTS: dict[str, tuple[str, list[int], list[int]]] = {
    "a split": ("train", [1, 3], [1, 4]),
    "another word for it": ("training", [1, 3], []),
    "a subset": ("ai2d", [1, 2], []),
    "a split of a subset": ("ai2d/test", [2], []),
    "a split of the card's": ("held", [], [2, 3]),
    "a subset of the card's": ("small", [], [1, 2, 3]),
    "both of the card's": ("small/train", [], [1]),
    "nothing": ("validation", [], []),
}


@pytest.mark.parametrize(("part", "by_name", "by_card"), PARTS.values(), ids=PARTS)
def test_the_files_of_a_part_are_found_by_the_card_or_by_their_names(
    part: str, by_name: list[int], by_card: list[int], tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(CARD)
    names = sorted(FILES[1:])
    assert hub_sets.chosen_files(part, names, []) == sorted(FILES[number] for number in by_name)
    said = hub_sets.card_parts(tmp_path / "README.md")
    assert hub_sets.chosen_files(part, names, said) == sorted(FILES[number] for number in by_card)
    assert hub_sets.card_parts(tmp_path / "nothing.md") == []


def test_the_files_of_a_split_alone_are_fetched_and_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other splits that were fetched before lie in the same folder of the cache, and are not read."""
    (cache / "test.jsonl").write_text("{}\n")
    assert list_files("someone/tiles:train", (".jsonl",)) == (str(cache / "train.jsonl"),), "offline, from the cache"
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append(options["allow_patterns"])
        return str(cache)

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: ["train.jsonl", "test.jsonl"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert list_files("someone/tiles@main:test", (".jsonl",)) == (str(cache / "test.jsonl"),)
    assert asked == [["README.md"], ["test.jsonl"]]
    with pytest.raises(DataError, match=r"no file of the data set is of 'validation'; it has test.jsonl, train.jsonl"):
        list_files("someone/tiles:validation", ("",))
