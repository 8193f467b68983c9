"""The runner: chosen without what is not needed, and errors of workers come back as themselves."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from lorgnette.data.prepare.pool import _cause, _daft, run
from lorgnette.data.prepare.scan import Task
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


class Slow:
    """Makes a chunk of the worker's number and group after a while."""

    def __call__(self, task):
        time.sleep(0.2)
        return self

    def dumps(self):
        return pickle.dumps((os.getpid(), os.getpgrp(), os.environ.get("TMPDIR", "")))


TASKS = [Task("a.parquet", first, (1,)) for first in range(200)]
WATCHED = """
import pickle
from lorgnette.data.prepare.pool import run
from tests.data.prepare.test_runner import TASKS, Slow
for task, chunk in run(Slow(), TASKS, workers=2):
    print(*pickle.loads(chunk), flush=True)
"""


def ended(group, seconds=20.0):
    """Whether every process of a group has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_workers_and_their_sockets_end_when_the_iterator_is_closed():
    made = run(Slow(), TASKS, workers=2)  # type: ignore[arg-type]
    _, chunk = next(made)
    pid, group, place = pickle.loads(chunk)
    assert pid != os.getpid() and group != os.getpgrp() and Path(place).is_dir()
    made.close()
    assert ended(group) and not Path(place).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_they_work_for(number):
    with subprocess.Popen([sys.executable, "-c", WATCHED], stdout=-1, stderr=-1, text=True) as process:
        _, group, place = process.stdout.readline().split()
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == -number and "Fatal" not in said
    assert ended(int(group)) and not Path(place).exists()


def test_one_worker_is_this_process():
    [(task, chunk)] = run(Slow(), TASKS[:1])  # type: ignore[arg-type]
    assert task == TASKS[0] and pickle.loads(chunk)[0] == os.getpid()
