"""The pool: chosen without what is not needed, and errors of workers come back as themselves."""

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
from lorgnette.data.prepare.scan import ScanTask
from lorgnette.errors import CheckpointError, DataError, SettingsError


def test_a_cluster_needs_a_package_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"--ray host:10001: the package ray is not installed here"):
        next(run(None, ["task"], ray="host:10001"))  # type: ignore[arg-type, list-item]


def test_the_pool_of_a_cluster_is_chosen_by_its_address_alone(monkeypatch):
    asked = []
    fake = types.SimpleNamespace(set_runner_ray=lambda address, **other: asked.append((address, other)))
    monkeypatch.setitem(sys.modules, "daft", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(cluster_resources=lambda: asked.append("resources")))
    assert _daft("ray://host:10001") is fake
    assert asked == [("ray://host:10001", {"noop_if_initialized": True}), "resources"]


def test_daft_is_told_to_count_nobody_before_it_is_imported(monkeypatch):
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    monkeypatch.setitem(sys.modules, "daft", types.SimpleNamespace(set_runner_ray=lambda *args, **other: None))
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(cluster_resources=dict))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    _daft("ray://host:10001")
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
    """Makes a chunk of the worker's number after a while."""

    def __call__(self, task):
        time.sleep(0.05)
        return self

    def dumps(self):
        return pickle.dumps(os.getpid())


class Failing:
    """Fails at one task, with an error that cannot be pickled and read again."""

    def __init__(self, error=None):
        self.error = error

    def __call__(self, task):
        if task.first == 3:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise self.error
        return self

    def dumps(self):
        return b""


class Unportable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


TASKS = [ScanTask("a.parquet", first, (1,)) for first in range(200)]
WATCHED = """
import pickle
from lorgnette.data.prepare.pool import run
from tests.data.prepare.test_pool import TASKS, Slow
for task, chunk in run(Slow(), TASKS, workers=2):
    print(pickle.loads(chunk), flush=True)
"""


def ended(pid, seconds=20.0):
    """Return whether a process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_every_task_is_done_once_by_several_workers():
    made = list(run(Slow(), TASKS[:24], workers=2))  # type: ignore[arg-type]
    assert sorted(task.first for task, _ in made) == list(range(24))
    assert len({pickle.loads(chunk) for _, chunk in made} - {os.getpid()}) == 2


def test_workers_end_when_the_iterator_is_closed():
    made = run(Slow(), TASKS, workers=2)  # type: ignore[arg-type]
    workers = {pickle.loads(next(made)[1]) for _ in range(6)}
    assert os.getpid() not in workers
    made.close()
    assert all(map(ended, workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_they_work_for(number):
    with subprocess.Popen([sys.executable, "-c", WATCHED], stdout=-1, stderr=-1, text=True) as process:
        workers = {int(process.stdout.readline()) for _ in range(6)}
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == -number and "Fatal" not in said
    assert all(map(ended, workers))


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (CheckpointError("the template fails"), CheckpointError, "the template fails"),
        (Unportable("no", "way"), DataError, "Unportable: no way"),
        (None, DataError, "were killed, probably for lack of memory: lower --workers"),
    ],
)
def test_what_a_worker_meets_is_raised(error, kind, said):
    with pytest.raises(kind, match=said):
        list(run(Failing(error), TASKS[:8], workers=2))  # type: ignore[arg-type]


BY_DAFT = """
import daft
from lorgnette.data.prepare.pool import _by_daft
from tests.data.prepare.test_pool import TASKS, Slow
print(sorted(task.first for task, chunk in _by_daft(daft, Slow(), TASKS[:6], 2) if chunk), flush=True)
"""


def test_daft_does_every_task_once():
    """The code of a cluster, on Daft's runner of one machine; whatever Daft leaves behind is ended."""
    environment = {**os.environ, "DO_NOT_TRACK": "1", "DAFT_PROGRESS_BAR": "0"}
    command = [sys.executable, "-c", BY_DAFT]
    with subprocess.Popen(command, stdout=-1, env=environment, text=True, start_new_session=True) as process:
        said = process.stdout.readline()
        os.killpg(process.pid, signal.SIGKILL)
    assert said.strip() == str([0, 1, 2, 3, 4, 5])


def test_one_worker_is_this_process():
    [(task, chunk)] = run(Slow(), TASKS[:1])  # type: ignore[arg-type]
    assert task == TASKS[0] and pickle.loads(chunk) == os.getpid()
