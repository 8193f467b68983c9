"""Images that are missing or damaged end no training: not of conversations, not in validation, not in an evaluation."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from lorgnette.errors import DataError
from lorgnette.train import evaluation as module
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from tests.data.sources.made import parquet


@pytest.fixture
def damaged(squares, tmp_path):
    """The same conversations in a folder of their own, of which six cannot be used."""
    rows = [json.loads(line) for line in (squares / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        for part in row["messages"][0]["content"] if isinstance(row["messages"][0]["content"], list) else ():
            if "path" in part:
                (tmp_path / part["path"]).write_bytes((squares / part["path"]).read_bytes())
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"no image at all")
    rows[4]["messages"][1]["content"] = " "
    rows[5]["messages"][0]["role"] = ["user"]
    written = [json.dumps(row) for row in rows]
    written[6], written[7] = "{" * 3000, '{"messages": ' + "9" * 5000 + "}"
    (tmp_path / "rows.jsonl").write_text("\n".join(written))
    return tmp_path


def trained(run, folder) -> str:
    console = Console(record=True, file=open("/dev/null", "w"), width=400)  # noqa: SIM115
    Trainer(run, folder, console).train()
    return console.export_text()


def test_rows_that_cannot_be_used_are_counted_and_named_before_the_first_step(short, damaged, tmp_path):
    plain = short.plain()
    plain["stages"][0] |= {
        "sources": [{"kind": "chat", "path": str(damaged / "rows.jsonl")}],
        "pack": {"samples": 26, "packs_per_step": 1},
    }
    said = trained(type(short).parse(plain), tmp_path / "run")
    assert "6 of 32 rows are not trained on" in said and "rows.jsonl, row 3: no image" in said
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert len(rows) == 5 and not any(row["replaced"] for row in rows)
    assert [row["samples"] for row in rows] == [26] * 5


def test_a_lost_image_is_not_validated_on_and_is_replaced_in_training(short, squares, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes((squares / f"{number}.png").read_bytes())
    talk = [{"role": "user", "content": "Colour?"}, {"role": "assistant", "content": "red"}]
    rows = [{"images": [{"bytes": None, "path": f"{number}.png"}], "messages": talk} for number in range(4)]
    source = {"kind": "chat", "path": str(parquet(folder / "rows.parquet", rows))}
    plain = short.plain() | {"validation": {"every": 3, "samples": 4, "sources": [source]}}
    plain["stages"][0] |= {"sources": [source]}
    run = type(short).parse(plain)
    trained(run, tmp_path / "whole")
    (folder / "2.png").unlink()
    said = trained(run, tmp_path / "lost")
    assert "not validated on" in said and "2.png" in said
    log = read_log(tmp_path / "lost" / "log.jsonl")
    assert len(log) == 5 and all("2.png" in sentence for row in log for sentence in row["replaced"])
    assert sum(len(row["replaced"]) for row in log) == 5
    assert len(read_log(tmp_path / "lost" / "validation.jsonl")) == 2


def test_a_benchmark_that_cannot_be_read_is_said_and_training_goes_on(short, tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise DataError("vqav2, question 3: cannot be read as an image")

    monkeypatch.setattr(module, "evaluate", refuse)
    run = type(short).parse(short.plain() | {"evaluation": {"every": 2, "tasks": ["drawings"], "questions": 2}})
    said = trained(run, tmp_path / "run")
    assert "drawings is not scored, and training continues: vqav2, question 3" in said
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 5
    assert [row["scores"] for row in read_log(tmp_path / "run" / "evaluation.jsonl")] == [{}] * 3
