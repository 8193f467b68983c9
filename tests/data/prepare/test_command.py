"""`lorgnette data prepare`, for one source and for a recipe."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.data.sources import schemas
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
    ledger = next(place.rglob("ledger.jsonl"))
    assert [json.loads(line)["reason"] for line in ledger.read_text().splitlines()] == ["no text"]
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
