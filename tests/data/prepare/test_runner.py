"""The runner: chosen without what is not needed, and errors of workers come back as themselves."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from lorgnette.data.prepare.runner import _cause, _daft, run
from lorgnette.errors import CheckpointError, DataError, SettingsError


def test_a_cluster_needs_a_package_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"--ray host:10001: the package ray is not installed here"):
        next(run(None, ["task"], ray="host:10001"))  # type: ignore[arg-type, list-item]


def test_the_runner_of_a_cluster_is_chosen_by_its_address_alone(monkeypatch):
    asked = []
    fake = types.SimpleNamespace(set_runner_ray=lambda address, **other: asked.append((address, other)))
    monkeypatch.setitem(sys.modules, "daft", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert _daft("ray://host:10001") is fake
    assert asked == [("ray://host:10001", {"noop_if_initialized": True})]
    assert _daft(None) is fake and len(asked) == 1
    assert "ray" not in sys.modules


def test_daft_is_told_to_count_nobody_before_it_is_imported(monkeypatch):
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    monkeypatch.setitem(sys.modules, "daft", types.SimpleNamespace())
    _daft(None)
    import os

    assert os.environ["DO_NOT_TRACK"] == "1"


def test_an_error_of_a_worker_is_found_behind_those_of_daft():
    try:
        try:
            raise CheckpointError("the template fails")
        except CheckpointError as inner:
            raise RuntimeError("wrapped") from inner
    except RuntimeError as error:
        assert isinstance(_cause(error), CheckpointError)
    assert isinstance(_cause(RuntimeError("a crash")), DataError)
