"""Checkpoints by name: what of a repository on the hub is fetched, at which revision, and what is said offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

import lorgnette
from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint_hash import checkpoint_digest
from lorgnette.hub.export import export
from lorgnette.hub.join import LanguageBackbone, VisionBackbone
from lorgnette.hub.load import load
from lorgnette.hub.source import fetch_checkpoint
from tests.hub.tiny import tiny_model, tiny_processor

UNWANTED = (
    "consolidated.safetensors",
    "original/consolidated.00.pth",
    "original/params.json",
    "onnx/model.onnx",
    "checkpoint-500/optimizer.safetensors",
    "checkpoint-500/model.safetensors",
    "optimizer.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
    "README.md",
)


class Hub:
    """Repositories in folders, given out by huggingface_hub's own filter of patterns."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[tuple[str, str | None]]()

    def snapshot_download(self, name: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision))
        source, cache = self.root / name / (revision or "main"), self.root / "cache" / name / (revision or "main")
        if not source.is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("outgoing traffic has been disabled\nsecond line")
        files = [str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, cache / file)
        return str(cache)

    def fetched(self, name: str, revision: str = "main") -> set[str]:
        cache = self.root / "cache" / name / revision
        return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", found.snapshot_download)
    return found


def fill(folder: Path) -> None:
    for name in UNWANTED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"large")


@pytest.mark.parametrize("shard_bytes", [50_000, 10**9], ids=["shards", "one file"])
def test_only_the_weights_that_the_index_names_are_fetched(hub: Hub, tmp_path: Path, shard_bytes: int) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "owner/name/main", shard_bytes=shard_bytes)
    wanted = {file.name for file in folder.iterdir()} - {"README.md"}
    fill(folder)
    load("owner/name")
    assert hub.fetched("owner/name") == wanted
    assert hub.asked == [("owner/name", None)] * 2, "the settings, then the weights"


def test_a_revision_is_given_by_name_or_by_argument(hub: Hub, tmp_path: Path) -> None:
    for seed, revision in enumerate(("v1.0", "main", "refs/pr/3")):
        export(tiny_model(seed=seed), tiny_processor(), tmp_path / "owner/name" / revision)
    latents = {
        revision: load(source, revision=argument)[0].connector.latents
        for revision, source, argument in (
            ("v1.0", "owner/name@v1.0", None),
            ("main", "owner/name", None),
            ("refs/pr/3", "owner/name", "refs/pr/3"),
        )
    }
    for seed, revision in enumerate(("v1.0", "main", "refs/pr/3")):
        assert (latents[revision] == tiny_model(seed=seed).connector.latents).all()
    assert checkpoint_digest("owner/name@v1.0") != checkpoint_digest("owner/name")
    with pytest.raises(CheckpointError, match="names another revision than v2; give one of them"):
        load("owner/name@v1.0", revision="v2")
    with pytest.raises(CheckpointError, match="is a folder, which has no revision v2"):
        load(tmp_path / "owner/name/main", revision="v2")


@pytest.mark.parametrize("open_it", [VisionBackbone.open, LanguageBackbone.open], ids=["vision", "language"])
def test_backbones_take_a_revision(hub: Hub, open_it: Callable[..., Any]) -> None:
    for source, argument in (("owner/name@v9", None), ("owner/name", "v9")):
        with pytest.raises(CheckpointError, match="owner/name@v9: no such folder here"):
            open_it(source, argument)
    assert hub.asked == [("owner/name", "v9")] * 2


def test_without_a_network_one_sentence_says_what_to_do(hub: Hub) -> None:
    with pytest.raises(CheckpointError) as caught:
        lorgnette.load("owner/nothing")
    said = str(caught.value)
    assert "\n" not in said and len(said) < 400
    assert "outgoing traffic has been disabled" in said
    assert "without a network give a folder" in said


@pytest.mark.parametrize(
    "shard", ["../../x.safetensors", "/etc/passwd", "..", ".", "a/b.safetensors", "*", "", 3, None]
)
def test_an_index_that_points_elsewhere_is_refused_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, shard: Any
) -> None:
    folder = export(tiny_model(), tiny_processor(), tmp_path / "owner/name/main")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    for opened in (lambda: fetch_checkpoint("owner/name"), lambda: load(folder)):
        with pytest.raises(CheckpointError, match="which is not a file of this folder"):
            opened()
    assert len(hub.asked) == 1
