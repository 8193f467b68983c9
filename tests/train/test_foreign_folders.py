"""Folders that hold somebody else's files: each writer refuses by name, or leaves them where they are."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from corpus.fetch import fetch
from corpus.writing import write_corpus
from lorgnette.cli.train import plot
from lorgnette.data.prepare.job import _clear
from lorgnette.errors import LorgnetteError
from lorgnette.eval.results import store
from lorgnette.eval.results.rank_files import Rank
from lorgnette.eval.results.store import ResultsFolder
from lorgnette.eval.results.submission import _is_submission
from lorgnette.files import DiskError
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.claim import claim
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import DistributedContext
from tests.train.watchers import OnStep

QUIET = Console(quiet=True)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    [
        *("run.yaml", "log.jsonl", "data.json", "validation.jsonl", "packs-0.json", "report.html", "results.json"),
        *("checkpoints/notes", "adapters/notes", "replay/notes", "best/notes", "model/notes", "eval/notes"),
    ],
)
def test_a_run_does_not_begin_where_somebody_else_has_what_it_would_write(tiny, tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\n")
    with pytest.raises(LorgnetteError, match=name.split("/")[0]):
        claim(tmp_path / "mine", tiny, DistributedContext())
    found = contents(tmp_path / "mine")
    found.pop(".lock", None)
    assert found == {name: b"name: mine\n"}


@pytest.mark.parametrize("name", ["model/notes.txt", "best/notes.txt", "adapters/one/lora/notes.txt"])
def test_what_could_not_be_written_at_the_end_is_said_at_the_beginning(tiny, tmp_path, name):
    claim(tmp_path / "run", tiny, DistributedContext())()
    file = tmp_path / "run" / name.replace("one", tiny.stages[0].name)
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(LorgnetteError, match=r"notes\.txt"):
        claim(tmp_path / "run", tiny, DistributedContext())
    assert file.read_text() == "mine"


def test_training_leaves_what_it_did_not_write(tiny, tmp_path):
    run = tiny.override("checkpoints.every=1", "checkpoints.keep=1")
    folder = tmp_path / "run"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "a.txt").write_text("mine")
    stopped: list[int] = []

    def keep(state, metrics):
        kept = manager.checkpoints(folder / "checkpoints")
        if kept and not stopped:
            stopped.append(1)
            (kept[-1] / "notes.txt").write_text("mine")
            (kept[-1] / "mine").mkdir()
            copy = kept[-1].with_name(f"{kept[-1].name}-copy")
            copy.mkdir()
            (copy / "progress.json").write_text("mine")

    Trainer(run, folder, QUIET, callbacks=[OnStep(keep)]).train()
    assert stopped and (folder / "photos" / "a.txt").read_text() == "mine"
    (noted,) = (folder / "checkpoints").glob("*/notes.txt")
    assert sorted(path.name for path in noted.parent.iterdir()) == ["mine", "notes.txt"]
    assert noted.parent.with_name(f"{noted.parent.name}-copy").is_dir()
    assert len(manager.checkpoints(folder / "checkpoints")) == 1


def test_checkpoints_are_those_of_their_name_in_the_order_of_steps(tmp_path):
    for name in ("step-1000000", "step-999999", "step-000001", "step-000002-copy", "step-best", "step-²"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "progress.json").touch()
    found = [path.name for path in manager.checkpoints(tmp_path)]
    assert found == ["step-000001", "step-999999", "step-1000000"]


def test_a_link_to_a_checkpoint_is_removed_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "progress.json").write_text("mine")
    (tmp_path / "step-000001").symlink_to("elsewhere")
    manager.remove_checkpoint(tmp_path / "step-000001")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (tmp_path / "elsewhere" / "progress.json").read_text() == "mine"


def test_a_fetch_refuses_a_folder_of_its_target_before_it_asks_anybody(tmp_path):
    (tmp_path / "openmoji").mkdir()
    (tmp_path / "openmoji" / "mine.png").write_bytes(b"mine")
    with pytest.raises(DiskError, match=r"openmoji: holds mine\.png, which lorgnette did not write"):
        fetch("openmoji", tmp_path)
    assert contents(tmp_path) == {"openmoji/mine.png": b"mine"}


@pytest.mark.parametrize("name", ["examples.jsonl", "summary.json", "notes.txt", "refused.jsonl"])
def test_an_evaluation_begins_in_no_folder_of_somebody_else(tmp_path, name):
    (tmp_path / name).write_text("mine, without an end of line")
    with pytest.raises(DiskError, match=name):
        ResultsFolder(tmp_path).begin({"task": "x", "metric": "x"})
    assert contents(tmp_path) == {name: b"mine, without an end of line"}
    (tmp_path / name).unlink()
    assert ResultsFolder(tmp_path).begin({"task": "x", "metric": "x"}) == []
    (tmp_path / "notes.txt").write_text("mine")  # beside results of ours it may lie
    assert ResultsFolder(tmp_path).begin({"task": "x", "metric": "x"}) == []


def test_an_evaluation_takes_up_a_folder_that_another_rank_begins_at_the_same_time(tmp_path, monkeypatch):
    settings, check = {"task": "x", "metric": "x"}, store.check_replaceable

    def overtaken(folder, ours):
        with monkeypatch.context() as patch:
            patch.setattr(store, "check_replaceable", check)
            ResultsFolder(tmp_path, Rank(1, 2)).begin(settings)
        check(folder, ours)

    monkeypatch.setattr(store, "check_replaceable", overtaken)
    assert ResultsFolder(tmp_path, Rank(0, 2)).begin(settings) == []


def test_the_corpus_replaces_files_of_its_own_columns_alone(tmp_path):
    written = write_corpus(tmp_path, 0.01, ["conversations"], ["train"])
    assert write_corpus(tmp_path, 0.01, ["conversations"], ["train"]) == written
    file = tmp_path / written[0].file
    for content in (b"mine", b"PAR1mine"):
        file.write_bytes(content)
        with pytest.raises(DiskError, match="did not write"):
            write_corpus(tmp_path, 0.01, ["conversations"], ["train"])
        assert file.read_bytes() == content
    pq.write_table(pa.table({"mine": [1]}), file)
    with pytest.raises(DiskError, match="did not write"):
        write_corpus(tmp_path, 1, ["conversations"], ["train"])


def test_curves_replace_curves_alone(tmp_path):
    row = {"total_step": 1, "stage": "a", "step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "samples": 1}
    row |= {"tokens": 1, "supervised_tokens": 1, "images": 0, "seconds": 1.0, "waited": 0.0}
    rows = [row, row | {"total_step": 2, "step": 2}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert plot(tmp_path) == plot(tmp_path)
    for key in ("total_step", "samples", "loss", "seconds"):
        cut = rows[1] | {key: 10**400}
        (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(cut) + "\n")
        assert read_log(tmp_path / "log.jsonl") == [row] and plot(tmp_path), "a row beyond 64 bits is none"
    (tmp_path / "curves.svg").write_text("<svg>mine</svg>")
    with pytest.raises(DiskError, match="did not write"):
        plot(tmp_path)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ('[{"question_id": 1, "answer": "two"}]', True),
        ('[{"questionId": 1, "answer": "two"}]', True),
        ('{"a_1": "B"}', True),
        ('{"a_1": 2}', False),
        ('[{"answer": "two"}]', False),
        ("[1]", False),
        ("[" * 9_000, False),
        ("notes", False),
    ],
)
def test_a_submission_is_told_from_other_files(text, ours):
    assert _is_submission(text.encode()) == ours


def test_preparing_anew_removes_what_preparing_wrote(tmp_path):
    ours = [
        *("chunks/0123456789ab-0.parquet", "converted-0123456789ab/00000.parquet", "converted-0123456789ab/state.json"),
        *("index-0123456789ab/index.parquet", "index-0123456789ab/contamination.html"),
    ]
    mine = ["chunks/mine.parquet", "index-0123456789ab/notes.txt", "notes/a.txt", "index-mine/index.parquet", "a.txt"]
    for name in (*ours, *mine):
        Path(tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    _clear(tmp_path)
    assert sorted(contents(tmp_path)) == sorted(mine) and not (tmp_path / "converted-0123456789ab").exists()
