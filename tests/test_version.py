"""The commit is that of the code which runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorgnette
from lorgnette.version import code, commit


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with a package in it that takes lorgnette's place."""
    (tmp_path / "lorgnette").mkdir()
    (tmp_path / "lorgnette" / "__init__.py").write_text("")
    monkeypatch.setattr(lorgnette, "__file__", str(tmp_path / "lorgnette" / "__init__.py"))
    for arguments in (["init"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)
    yield tmp_path
    commit.cache_clear()


def asked() -> str:
    commit.cache_clear()
    return commit()


def test_a_plus_says_that_the_package_differs(checkout: Path) -> None:
    clean = asked()
    assert clean.isalnum() and len(clean) >= 7
    assert code() == {"lorgnette": lorgnette.__version__, "commit": clean}
    (checkout / "results.json").write_text("{}")
    assert asked() == clean
    (checkout / "lorgnette" / "new.py").write_text("")
    assert asked() == f"{clean}+"
    (checkout / "lorgnette" / "new.py").unlink()
    (checkout / "lorgnette" / "__init__.py").write_text("changed = True")
    assert asked() == f"{clean}+"


def test_outside_of_a_checkout_it_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = checkout / "site-packages" / "lorgnette"
    inner.mkdir(parents=True)
    monkeypatch.setattr(lorgnette, "__file__", str(inner / "__init__.py"))
    assert asked() == "unknown", "the repository around it is somebody else's"
    monkeypatch.setattr(lorgnette, "__file__", str(checkout / "lorgnette" / "__init__.py"))
    monkeypatch.setenv("PATH", "")
    assert asked() == "unknown", "without git"
