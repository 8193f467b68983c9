"""Several processes on one evaluation: over the whole table, neither ranks nor batches nor kills change a byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.rank_files import Rank, join, parts, rows
from lorgnette.eval.results.store import Example, ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task, transcript
from lorgnette.eval.tasks import BENCHMARKS, task_named
from lorgnette.sample import Sample, Text
from tests.eval.fixtures import write_benchmark

NAMES = list(BENCHMARKS)
WAYS: dict[str, dict[str, Any]] = {
    "chat": {},
    "blind": {"blind": True},
    "limit": {"limit": 4, "seed": 3},
    "shots": {"shots": 2},
    "likelihood": {"choices": "likelihood"},
}
ALIKE = {"text_vqa", "knowledge_vqa", "doc_vqa"}
"""Benchmarks that are read as scene_vqa is: asked in one way."""
CASES = [
    (name, way)
    for name in NAMES
    for way in WAYS
    if (way == "chat" or name not in ALIKE)
    and (way != "shots" or BENCHMARKS[name].train)
    and (way != "likelihood" or name in ("ai2d", "mmbench", "mmmu", "mathvista"))
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("benchmarks")
    return {key: path for name in NAMES for key, path in write_benchmark(root, name).items()}


class Wavers(Model):
    """Right or wrong by a hash of all that it is shown: another shot or picture shows in the score."""

    def __init__(self, batches: int = 10**6) -> None:
        self.batches = batches

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        if not self.batches:
            raise KeyboardInterrupt
        self.batches -= 1
        return [self._answer(sample) for sample in samples]

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        shown = [transcript(sample, image_digest) for sample in samples]
        return [[_chance(text + one) for one in row] for text, row in zip(shown, candidates, strict=True)]

    def _answer(self, sample: Sample) -> str:
        chance = _chance(transcript(sample, image_digest))
        return str(next(iter(sample.meta["answers"]), "x")) if chance < 0.6 else f"no {chance:.2f}"


def _chance(text: str) -> float:
    return hashlib.sha256(text.encode()).digest()[0] / 256


def opened(name: str, way: str, data: dict[str, str]) -> tuple[Task, dict[str, Any]]:
    """A task, and how it is run."""
    asked = {key: value for key, value in WAYS[way].items() if key in ("shots", "choices")}
    task = task_named(name, Asking(data=data, incomplete=True, **asked))
    return task, {key: value for key, value in WAYS[way].items() if key not in asked}


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a results folder, but for who made it and when."""
    found = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    found.pop("sessions.jsonl")
    summary = json.loads(found.pop("summary.json"))
    summary.pop("made_by")
    return {**found, "summary": summary}


@pytest.mark.parametrize(("name", "way"), CASES)
def test_ranks_and_batches_change_no_byte(name: str, way: str, data: dict[str, str], tmp_path: Path) -> None:
    task, how = opened(name, way, data)
    whole = evaluate(task, Wavers(), folder=tmp_path / "whole", **how)
    for ranks, batch_size in ((2, 1), (3, 5)):
        folder = tmp_path / f"{ranks}"
        found = [
            evaluate(task, Wavers(), folder=ResultsFolder(folder, Rank(rank, ranks)), batch_size=batch_size, **how)
            for rank in reversed(range(ranks))
        ]
        assert [bool(result.missing) for result in found] == [True] * (ranks - 1) + [False]
        assert found[-1] == whole
        assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["vqav2", "mmbench", "coco"])
def test_another_number_of_ranks_goes_on(name: str, data: dict[str, str], tmp_path: Path) -> None:
    task, _ = opened(name, "chat", data)
    whole = evaluate(task, Wavers(), folder=tmp_path / "whole")
    folder = tmp_path / "shared"
    with pytest.raises(KeyboardInterrupt):
        evaluate(task, Wavers(2), folder=ResultsFolder(folder, Rank(1, 2)), batch_size=1)
    with (folder / "examples-00001-of-00002.jsonl").open("ab") as file:
        file.write('{"index": 7, "name": "ü'.encode()[:-1])  # cut within a character
    assert ResultsFolder(folder).result().missing == whole.count + len(whole.rejected) - 2
    for rank in range(4):
        found = evaluate(task, Wavers(), folder=ResultsFolder(folder, Rank(rank, 4)), batch_size=2)
    assert found == whole
    assert contents(folder) == contents(tmp_path / "whole")
    assert evaluate(task, Wavers(0), folder=folder) == whole, "a finished folder asks nothing, with any number of ranks"
    assert {row["ranks"] for row in ResultsFolder(folder).sessions()} == {2, 4}


SHARED = """
import json, sys, time
from lorgnette.eval.models.base import Model
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.eval.runner import evaluate
from lorgnette.eval.results.rank_files import Rank
from lorgnette.eval.task import Task
from lorgnette.sample import Sample, Text

class Slow(Model):
    identity = "slow"

    def generate(self, samples, *, max_tokens, stop=()):
        time.sleep(float(sys.argv[2]))
        return [sample.meta["answer"] if len(sample.name) % 3 else "?" for sample in samples]

samples = [Sample((Text(f"{n}?"),), {"name": "q" * n, "answer": str(n), "kind": f"k{n % 2}"}) for n in range(1, 25)]
folder = ResultsFolder(sys.argv[1], Rank.of_torchrun())
result = evaluate(Task("numbers", samples), Slow(), batch_size=2, folder=folder)
print(json.dumps([result.missing, result.accuracy]))
"""


def test_kill_9_of_one_of_two_processes(tmp_path: Path) -> None:
    def start(folder: str, rank: int, of: int, pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SHARED, str(tmp_path / folder), str(pause)]
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(of)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    alone = start("whole", 0, 1, 0)
    first, second = start("shared", 0, 2, 0), start("shared", 1, 2, 0.2)
    own = tmp_path / "shared" / "examples-00001-of-00002.jsonl"
    deadline = time.monotonic() + 60
    while not own.exists() or own.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second.kill()
    assert second.wait() == -signal.SIGKILL
    missing, _ = json.loads(first.communicate()[0])
    stored = len(rows(tmp_path / "shared", "examples"))
    assert 4 <= stored - 12 < 12, "rank 0 asked twelve; rank 1 was killed amid its own"
    assert missing >= 24 - stored
    again = [start("shared", rank, 3, 0) for rank in range(3)]
    said = [json.loads(process.communicate()[0]) for process in again]
    assert json.loads(alone.communicate()[0])[1] in [accuracy for missing, accuracy in said if not missing]
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_a_share_is_neighbours_and_all_shares_are_everything() -> None:
    items = list(range(17))
    for of in range(1, 20):
        shares = [Rank(number, of).share(items) for number in range(of)]
        assert [item for share in shares for item in share] == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_torchrun_says() -> None:
    assert Rank.of_torchrun({}) == Rank(0, 1)
    assert Rank.of_torchrun({"RANK": "3", "WORLD_SIZE": "4"}) == Rank(3, 4)
    with pytest.raises(SettingsError, match="both must be numbers"):
        Rank.of_torchrun({"RANK": "three", "WORLD_SIZE": "4"})
    with pytest.raises(SettingsError, match="rank 4 of 4"):
        Rank.of_torchrun({"RANK": "4", "WORLD_SIZE": "4"})


def test_a_damaged_row_of_any_file_is_named(tmp_path: Path) -> None:
    task = Task("t", [Sample((Text("?"),), {"name": f"q{n}", "answer": "a"}) for n in range(4)])
    evaluate(task, Says(), folder=ResultsFolder(tmp_path, Rank(0, 2)))
    file = tmp_path / "examples-00000-of-00002.jsonl"
    for damage in (b'{"index": 0\n', b'{"index": 0}\n', b"[1]\n", b"\xff\xfe\n"):
        file.write_bytes(damage + file.read_bytes().split(b"\n", 1)[1])
        with pytest.raises(DataError, match=r"examples-00000-of-00002\.jsonl, line 1: damaged; delete it"):
            ResultsFolder(tmp_path).examples()


class Says(Model):
    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        return ["a"] * len(samples)


def test_files_that_are_joined_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("t", [Sample((Text("?"),), {"name": f"q{n}", "answer": "a"}) for n in range(4)])
    for rank in range(2):
        evaluate(task, Says(), folder=ResultsFolder(tmp_path, Rank(rank, 2)))
    gone = tmp_path / "examples-00000-of-00002.jsonl"
    assert not gone.exists()
    listed = [[gone], []]  # the first listing is from before
    monkeypatch.setattr("lorgnette.eval.results.rank_files.parts", lambda folder, kind: listed.pop(0))
    assert [Example.from_row(row).index for _, row in rows(tmp_path, "examples")] == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [True, False], ids=["joined, then listed", "listed, then joined"])
def test_files_that_are_joined_while_they_are_listed(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("t", [Sample((Text("?"),), {"name": f"q{n}", "answer": "a"}) for n in range(4)])
    evaluate(task, Says(), folder=ResultsFolder(tmp_path, Rank(0, 2)))
    stored = [row for _, row in rows(tmp_path, "examples")]

    def meanwhile(folder: Path, kind: str) -> list[Path]:
        """Lists files at the moment at which another process joins them."""
        with monkeypatch.context() as other:
            other.setattr("lorgnette.eval.results.rank_files.parts", parts)
            listed = parts(folder, kind)
            join(folder, kind, stored)
            return parts(folder, kind) if first else listed

    monkeypatch.setattr("lorgnette.eval.results.rank_files.parts", meanwhile)
    assert [row for _, row in rows(tmp_path, "examples")] == stored
