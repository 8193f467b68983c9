"""SIGKILL at any moment: the next run goes on, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lorgnette.data.inspect import source_config
from lorgnette.data.prepare import open_prepared, prepare
from lorgnette.data.rejected import read_rejected
from lorgnette.inputs.processor import Processor
from tests.data.prepare.conftest import SOURCES, pairs, picture

PROGRAM = """
import json, os, random, signal, sys, time
from lorgnette.data.inspect import source_config
from lorgnette.data.prepare import convert, job, prepare
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig

kind, whole, killed, tokenizer = sys.argv[1:]
convert.PARQUET_SHARD_BYTES, convert.GROUP_ROWS, job.ROWS_OF_TASK = 1, 8, 8
true = job.new_file
def slow(path):
    time.sleep(0.02)  # more moments to be killed in, between one chunk and the next
    return true(path)
job.new_file = convert.new_file = slow
images = ImageConfig(shortest=28, longest=56, grid=4)
processor = Processor(Tokenizer.load(tokenizer), images, PerceiverConfig(latents=4))

def started(path):
    child = os.fork()
    if not child:
        prepare(source_config(kind, path, []), processor, workers=1)
        os._exit(0)
    return child

lots, ends = random.Random(kind), [os.waitpid(started(whole), 0)[1]]
for _ in range(5):
    child = started(killed)
    time.sleep(lots.uniform(0.02, 0.4))
    os.kill(child, signal.SIGKILL)
    ends.append(os.waitpid(child, 0)[1])
ends.append(os.waitpid(started(killed), 0)[1])
print(json.dumps(ends))
"""
"""Prepares one folder to its end; begins with the other, is killed, five times, and then is not."""


def source(kind: str, folder: Path) -> Path:
    """A source with rows that are refused among those that are kept."""
    path = SOURCES[kind](folder, rows=40)
    if kind == "pairs":
        (path / "07.png").write_bytes(picture(7)[:150])
        (path / "12.txt").write_text(" ")
    return path


def outcome(folder: Path) -> tuple[dict[str, list[int]], list[tuple[str, str]], list[str]]:
    """All that was made: arrays, refused rows, and the files that lie there."""
    (facts,) = folder.rglob("prepared.json")
    from lorgnette.data.index import Index

    index = Index.load(facts.parent / "index.parquet")
    arrays = {name: values.tolist() for name, values in index.arrays.items()}
    entries = [(Path(one.file).name, one.reason) for one in read_rejected(facts.parent / "rejected.jsonl")]
    made = sorted(re.sub("[0-9a-f]{12}", "*", path.name) for path in folder.rglob(".lorgnette/**/*.*"))
    return arrays, entries, made


@pytest.mark.parametrize("kind", ["pairs", "instruct"])
def test_a_killed_run_goes_on(kind, tmp_path, processor: Processor):
    processor.tokenizer.save(tmp_path / "tokenizer")
    whole, killed = (source(kind, tmp_path / name) for name in ("whole", "killed"))
    command = [sys.executable, "-c", PROGRAM, kind, str(whole), str(killed), str(tmp_path / "tokenizer")]
    ends = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert ends[0] == ends[-1] == 0
    assert signal.SIGKILL in ends
    assert outcome(killed) == outcome(whole)
    assert not list(killed.rglob("*.tmp"))


def test_what_a_killed_run_left_half_written_is_not_taken_for_done(tmp_path, processor, monkeypatch):
    path = pairs(tmp_path, rows=9)
    config = source_config("pairs", str(path), [])
    before = prepare(config, processor, workers=1)
    home = before.folder.parent
    # as an earlier version named it, of a process that is gone
    half = home / "chunks" / f".half.parquet.{platform.node()}.4194303.tmp"
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    (before.folder / "prepared.json").unlink()
    for state in home.glob("converted-*/state.json"):
        state.write_text(json.dumps({"items": 0, "shards": [], "done": False}))
    monkeypatch.setattr("lorgnette.files._cleared", set())  # as in another process
    after = prepare(config, processor, workers=1)
    assert len(after) == 9
    assert np.array_equal(after.index.sha_I, before.index.sha_I)
    assert not list(home.rglob("*.tmp"))
    assert len(open_prepared(config, processor)) == 9
