"""A run's folder that somebody else made: nothing in it is executed, and what is damaged is one sentence."""

from __future__ import annotations

import os
import pickle
import shutil

import pytest
import torch
from rich.console import Console
from torch.distributed.checkpoint import metadata as stored
from torch.distributed.checkpoint.filesystem import FileSystemReader
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, LorgnetteError
from lorgnette.run import Run
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.debug_step import keep_step, replay
from lorgnette.train.checkpoint.metadata import CheckpointReader
from lorgnette.train.loop import Trainer

QUIET = Console(quiet=True)


class Malicious:
    """A pickle that calls a function when it is read."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


@pytest.fixture(scope="module")
def unfinished(tiny, tmp_path_factory):
    """A run stopped before its end: it has a checkpoint and a kept step, and no model."""
    folder = tmp_path_factory.mktemp("foreign") / "run"
    trainer = Trainer(tiny, folder, QUIET)
    trainer.train()
    newest = manager.checkpoints(folder / "checkpoints")[-1]
    progress = manager.read_progress(newest)
    before = manager.Progress(progress.run, 1, 2, 7, 1.0)
    keep_step(folder / "replay", before, [], trainer.model, 0, trainer.world)
    return folder


@pytest.fixture
def foreign(unfinished, tmp_path):
    """A copy of it to be damaged."""
    return shutil.copytree(unfinished, tmp_path / "run")


def metadata_files(folder):
    return [*folder.glob("checkpoints/*/.metadata"), *folder.glob("replay/*/weights/.metadata")]


COMMANDS = [
    ["export", "--model", "RUN", "OUT"],
    ["train", "RUN", "--folder", "RUN"],
    ["train", "RUN/replay/step-000008", "--replay"],
    ["import", "RUN", "OUT"],
    ["show", "RUN"],
    ["generate", "--model", "RUN", "--prompt", "hello"],
    ["train", "RUN", "--plot"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:3]))
def test_a_pickle_in_a_run_is_not_executed(foreign, tmp_path, arguments):
    flag = tmp_path / "flag"
    for file in metadata_files(foreign):
        file.write_bytes(pickle.dumps(Malicious(flag)))
    ended = CliRunner().invoke(
        app, [word.replace("RUN", str(foreign)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    )
    assert not flag.exists()
    assert ended.exception is None or isinstance(ended.exception, LorgnetteError), ended.exception
    if arguments[0] in ("export", "train") and "--plot" not in arguments:
        assert "which no checkpoint holds" in str(ended.exception)


def test_the_flag_would_have_been_set(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Malicious(tmp_path / "flag")))
    with pytest.raises(AttributeError):
        FileSystemReader(tmp_path).read_metadata()
    assert (tmp_path / "flag").exists(), "the library's own reader runs it: if no more, ours is not needed"


def test_what_the_library_writes_is_read_as_the_library_reads_it(unfinished):
    for file in metadata_files(unfinished):
        ours, theirs = CheckpointReader(file.parent).read_metadata(), FileSystemReader(file.parent).read_metadata()
        assert ours.state_dict_metadata == theirs.state_dict_metadata
        assert ours.storage_data == theirs.storage_data


def changed(metadata: stored.Metadata, how: str) -> object:
    places = list(metadata.storage_data.values())
    tensors = list(metadata.state_dict_metadata.values())
    if how == "no metadata":
        return [1, 2]
    if how == "no tables":
        metadata.storage_data = None
    if how == "a file elsewhere":
        places[0].relative_path = "../../secret"
    if how == "a negative place":
        places[0].offset = -5
    if how == "a transform":
        places[0].transform_descriptors = ("zstd",)
    if how == "no size":
        tensors[0].size = 5
    if how == "a huge tensor":
        tensors[0].size = torch.Size([10**9, 10**9])
    if how == "no tensor":
        metadata.state_dict_metadata["model.x"] = "text"
    return metadata


@pytest.mark.parametrize(
    "how",
    [
        *("no metadata", "no tables", "a file elsewhere", "a negative place"),
        *("a transform", "no size", "a huge tensor", "no tensor"),
    ],
)
def test_metadata_that_means_something_else_is_refused(foreign, tiny, how):
    for file in metadata_files(foreign):
        metadata = FileSystemReader(file.parent).read_metadata()
        file.write_bytes(pickle.dumps(changed(metadata, how)))
    with pytest.raises(CheckpointError) as caught:
        Trainer(tiny, foreign, QUIET).train()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "[]",
        "{}",
        '{"run": "x", "stage": 9, "step": 1, "total_step": 1, "seconds": 1}',
        '{"seed": ' + "9" * 5000,
        '{"run": "x", "stage": [], "step": 1, "total_step": 1, "seconds": 1}',
    ],
    ids=lambda text: text[:40],
)
def test_facts_that_are_none_are_one_sentence(foreign, tmp_path, text):
    for file in [*foreign.glob("checkpoints/*/progress.json"), *foreign.glob("replay/*/replay.json")]:
        file.write_text(text)
    for arguments in COMMANDS[:3]:
        words = [word.replace("RUN", str(foreign)).replace("OUT", str(tmp_path / "out")) for word in arguments]
        ended = CliRunner().invoke(app, words)
        assert isinstance(ended.exception, CheckpointError), ended.exception


@pytest.mark.parametrize("line", ["[" * 2000, "[]", "{}", '{"total_step": "x", "stage": 1}', "\xff", "9" * 5000])
def test_a_log_that_is_none_ends_where_it_is_none(foreign, tiny, line):
    log = foreign / "log.jsonl"
    log.write_text(line + "\n" + log.read_text())
    assert Trainer(Run.load(foreign / "run.yaml"), foreign, QUIET).train()
    assert len(replay(foreign / "replay" / "step-000008", QUIET)) == 0
