"""Exports and evaluations that are killed for real: the next one of the same target finds nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lorgnette import files
from lorgnette.cli.eval import _run
from lorgnette.errors import LorgnetteError
from lorgnette.eval.results.rank_files import Rank
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.files import hold
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from tests.hub.tiny import tiny_model, tiny_processor

EXPORTS = """
import os, sys
from lorgnette.hub import export as module
from tests.hub.tiny import tiny_model, tiny_processor
write = module.write_tensors
def killed(folder, *others):
    write(folder, *others)
    os.kill(os.getpid(), 9)
module.write_tensors = killed
module.export(tiny_model(), tiny_processor(), sys.argv[1])
"""
EVALUATES = """
import os, pathlib, sys
from lorgnette.eval.results.store import ResultsFolder
store = ResultsFolder(sys.argv[1])
store.begin({"task": "a", "metric": "b"})
pathlib.Path.write_bytes = lambda path, content: (path.touch(), os.kill(os.getpid(), 9))
store.append([], {"0" * 8: b"picture"})
"""
HOLDS = """
import sys
from lorgnette.files import hold
hold(sys.argv[1], "refused")
print("held", flush=True)
sys.stdin.read()
"""


def killed(program, target):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program, str(target)], capture_output=True, env=environment)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.mark.parametrize("before", [False, True])
def test_a_killed_export_leaves_the_folder_and_nothing_after_the_next(tmp_path, before, capfd):
    target = tmp_path / "out"
    if before:
        export(tiny_model(), tiny_processor(), target)
    files_before = {path.name: path.read_bytes() for path in target.glob("*")}
    killed(EXPORTS, target)
    assert {path.name: path.read_bytes() for path in target.glob("*")} == files_before
    assert len([path for path in tmp_path.iterdir() if path != target]) == 1
    export(tiny_model(), tiny_processor(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and load(target)
    assert "left half written" in capfd.readouterr().err


def test_a_killed_evaluation_leaves_no_picture_after_the_next(tmp_path):
    target = tmp_path / "results"
    killed(EVALUATES, target)
    assert len(list((target / "pictures").iterdir())) == 1
    files._cleared.clear()
    store = ResultsFolder(target)
    store.begin({"task": "a", "metric": "b"})
    store.append([], {"0" * 8: b"picture"})
    assert [path.name for path in (target / "pictures").iterdir()] == ["0" * 8 + ".jpg"]


def test_an_evaluation_refuses_a_folder_that_another_process_writes(tmp_path):
    lock = tmp_path / "drawings" / ".examples.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(lock)], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LorgnetteError, match="drawings: another process evaluates into this folder"):
            _run({"drawings": None}, None, None, tmp_path, {})
        other.kill()
    hold(lock, "it is still held")()


CLAIMS = """
import pathlib, sys
from lorgnette.eval.results.rank_files import Rank
Rank(int(sys.argv[2]), int(sys.argv[3])).claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("other", "refused"), [((0, 1), True), ((1, 3), True), ((0, 2), True), ((1, 2), False)])
def test_processes_of_one_number_share_a_folder_and_others_are_refused(tmp_path, other, refused):
    folder = tmp_path / "drawings"
    Rank(0, 4).claim(folder)()  # lock files that an evaluation left behind stop nobody
    command = [sys.executable, "-c", CLAIMS, str(folder), "0", "2"]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as first:
        assert first.stdout.readline() == b"held\n"
        command[-2:] = map(str, other)
        with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as second:
            _, said = second.communicate(timeout=120)
        assert (second.returncode != 0) == refused
        assert (b"drawings: another process evaluates into this folder; wait for it" in said) == refused
        first.kill()
    Rank(0, 1).claim(folder)()
