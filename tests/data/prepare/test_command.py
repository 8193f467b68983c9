"""`lorgnette data prepare`, for one source and for a recipe."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.sources.reading import schemas
from lorgnette.errors import LorgnetteError
from tests.data.prepare.conftest import instruct_row, write_parquet


@pytest.fixture
def place(tmp_path, processor):
    """Five rows of which one has no answer, and the folder of a tokenizer."""
    rows = [instruct_row(number) for number in range(5)]
    rows[3] = {**rows[3], "texts": []}
    write_parquet(tmp_path / "source" / "0.parquet", rows, schemas.INSTRUCT)
    processor.save(tmp_path / "model")
    return tmp_path


def prepared(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(re.sub(r"[│┃─━┏┓┗┛┡┩╇┳┻├┤┴┬┼]", " ", result.output).split())


def test_a_source_by_itself_is_prepared_once_with_what_was_refused(place, monkeypatch):
    first = prepared("--kind", "instruct", place / "source", "--tokenizer", place / "model")
    assert re.search(r"read .*?5\b", first) and re.search(r"kept .*?4\b", first) and "no text" in first
    rejected = next(place.rglob("rejected.jsonl"))
    assert [json.loads(line)["reason"] for line in rejected.read_text().splitlines()] == ["no text"]
    monkeypatch.setattr("lorgnette.data.prepare.scan.Scanner.__call__", lambda *_: pytest.fail("read again"))
    assert re.search(r"kept .*?4\b", prepared("--kind", "instruct", place / "source", "--tokenizer", place / "model"))


WRONG = {
    "no tokenizer": (["--kind", "instruct", "source"], "--tokenizer"),
    "an unknown kind": (["--kind", "instructt", "source", "--tokenizer", "model"], "instruct"),
    "no such path": (["--kind", "instruct", "sourse", "--tokenizer", "model"], "sourse"),
    "no such recipe": (["no-such-recipe"], "no such recipe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(place, name):
    arguments, reason = WRONG[name]
    given = [str(place / one) if one in ("source", "sourse", "model") else one for one in arguments]
    with pytest.raises(LorgnetteError, match=reason):
        CliRunner().invoke(app, ["data", "prepare", *given], catch_exceptions=False)


TALK = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "This."}]


def odd_chat(folder, parquet):
    """Two rows whose images are in a column that is not read, and whose text has a place for one."""
    folder.mkdir()
    if parquet:
        held = {"bytes": b"\x89PNG", "path": "a.png"}
        pq.write_table(pa.Table.from_pylist([{"messages": TALK, "imgs": [held]}] * 2), folder / "a.parquet")
    else:
        (folder / "a.jsonl").write_text("\n".join([json.dumps({"messages": TALK, "imgs": ["a.png"]})] * 2))
    return folder


@pytest.mark.parametrize("parquet", [True, False], ids=["in place", "converted"])
def test_columns_of_images_that_are_not_read_and_places_without_image_are_said(place, parquet):
    source = odd_chat(place / "odd", parquet)
    said = prepared("--kind", "chat", source, "--tokenizer", place / "model")
    assert "noted: <image> and no image 2" in said and "kept 2" in said
    assert f"'imgs' holds images in {1 if parquet else 2} row" in said and "rename the column" in said
    entries = [json.loads(line) for line in next(source.rglob("rejected.jsonl")).read_text().splitlines()]
    assert sorted(one["reason"] for one in entries) == ["<image> and no image"] * 2 + ["column not read"]
    assert all(one["rows"] == 0 for one in entries)
    if not parquet:
        places = [(one["file"], one["place"]) for one in entries if one["reason"] != "column not read"]
        assert places == [(str(source / "a.jsonl"), "row 1"), (str(source / "a.jsonl"), "row 2")]
