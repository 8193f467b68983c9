"""Several models on the same questions, in a table for people and for papers."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from lorgnette.cli import main
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.results.score_table import compare_all, names_of_folders, rows_of, write_scores
from tests.eval.results.test_compare import answered, stored


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three models that answer 20, 30 and 25 of 40 questions."""
    return [stored(tmp_path / name / "made_up", answered(right, 40 - right)).parent
            for name, right in (("base", 20), ("ours", 30), ("the_irs", 25))]  # fmt: skip


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lorgnette", "eval", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_every_model_is_compared_with_the_first(folders, tmp_path):
    rows = rows_of(compare_all(folders))
    assert [(row.model, row.score.value) for row in rows] == [("base", 50), ("ours", 75), ("the_irs", 62.5)]
    assert rows[0].difference is None and rows[1].difference.value == 25 and rows[1].difference.low > 0
    for name in ("a.csv", "a.md", "a.tex"):
        write_scores(tmp_path / name, rows)
    read = list(csv.reader((tmp_path / "a.csv").read_text().splitlines()))
    assert read[0][:3] == ["task", "model", "score"] and read[2][1:3] == ["ours", "75.00"] and read[1][5] == ""
    assert "| made_up | ours | 75.00 |" in (tmp_path / "a.md").read_text()
    assert r"made\_up & the\_irs & 62.50" in (tmp_path / "a.tex").read_text()
    with pytest.raises(SettingsError, match=r"use one of \.csv, \.tex, \.md"):
        write_scores(tmp_path / "a.xls", rows)


def test_the_command_takes_any_number_and_names_them(folders, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, *folders, "--table", tmp_path / "a.md") == 0
    said = capsys.readouterr().out
    assert "the_irs" in said and "+12.5" in said and (tmp_path / "a.md").is_file()
    assert command(monkeypatch, *folders[:2], "--page", tmp_path / "page.html") == 0
    said = capsys.readouterr().out
    assert "(base) to 75.0 (ours)" in said and "page.html" in said and (tmp_path / "page.html").is_file()
    for arguments, refusal in (
        (folders[:1], "is compared with nothing"),
        ([folders[0], folders[0]], "is given twice"),
        ([*folders, "--page", tmp_path / "page.html"], "--page shows two evaluations, and 3 are given"),
    ):
        assert command(monkeypatch, *arguments) == 1
        assert refusal in capsys.readouterr().err


def test_names_are_as_short_as_they_can_be(tmp_path):
    assert names_of_folders([tmp_path / "a/results", tmp_path / "b/results"]) == ["a/results", "b/results"]
    assert names_of_folders([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_tasks_that_differ_are_said(folders, tmp_path):
    other = tmp_path / "other"
    for name in ("one", "two"):
        stored(other / name, answered(3, 3))
    stored(folders[0] / "more", answered(3, 3))
    with pytest.raises(DataError, match="no task in common"):
        compare_all([folders[0], other])
