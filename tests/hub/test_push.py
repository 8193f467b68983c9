"""`export --push` against a hub that is stood in for: what is asked of it, and what is refused before it is asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.export import push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the hub was asked, in turn. It refuses a repository whose name ends with `refused`."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        def create_repo(self, name: str, **options: Any) -> None:
            if name.endswith("refused"):
                raise OSError("403 Forbidden: you may not write here\nRequest ID: x")
            asked.append(("create_repo", {"name": name, **options}))

        def upload_folder(self, **options: Any) -> Any:
            asked.append(("upload_folder", options))
            return SimpleNamespace(repo_url=f"https://huggingface.co/{options['repo_id']}")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return asked


def exported(upstream: Path, folder: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["export", "--model", str(upstream), str(folder), *options])


@pytest.mark.parametrize("private", [False, True])
def test_an_export_is_uploaded_with_its_card(upstream: Path, tmp_path: Path, hub: Any, private: bool) -> None:
    options = ["--push", "owner/name", "--license", "apache-2.0", *(["--private"] if private else [])]
    done = exported(upstream, tmp_path / "out", *options)
    assert done.exit_code == 0 and "Pushed to https://huggingface.co/owner/name" in done.output
    (made, first), (sent, second) = hub
    assert (made, first) == ("create_repo", {"name": "owner/name", "private": private, "exist_ok": True})
    assert sent == "upload_folder" and second["folder_path"] == str(tmp_path / "out")
    assert {"README.md", "config.json", "model.safetensors"} <= set(second["allow_patterns"])
    assert "license: apache-2.0\n" in (tmp_path / "out" / "README.md").read_text()


REFUSED: dict[str, tuple[list[str], str]] = {
    "no owner": (["--push", "name"], "give the repository as owner/name"),
    "a revision": (["--push", "owner/name@main"], "give the repository as owner/name"),
    "private alone": (["--private"], "give --push owner/name"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_pushed_is_refused_before_anything_is_written(
    upstream: Path, tmp_path: Path, hub: Any, options: list[str], said: str
) -> None:
    done = exported(upstream, tmp_path / "out", *options)
    assert isinstance(done.exception, SettingsError) and said in str(done.exception)
    assert not hub and not (tmp_path / "out").exists()


def test_without_a_token_or_a_network_nothing_is_written(
    upstream: Path, tmp_path: Path, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = exported(upstream, tmp_path / "out", "--push", "owner/name")
    assert isinstance(done.exception, SettingsError) and "hf auth login" in str(done.exception)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE is set"):
        push(upstream, "owner/name")
    assert not hub and not (tmp_path / "out").exists()


def test_the_reason_of_the_hub_is_passed_on(upstream: Path, tmp_path: Path, hub: Any) -> None:
    done = exported(upstream, tmp_path / "out", "--push", "owner/refused")
    assert isinstance(done.exception, CheckpointError)
    assert "403 Forbidden: you may not write here); the folder is whole, push it again" in str(done.exception)
    assert (tmp_path / "out" / "config.json").is_file()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        push(tmp_path, "owner/name")
