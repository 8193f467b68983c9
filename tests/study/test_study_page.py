"""The report of a study: what is measured, judged and missing, on a page that loads nothing."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lorgnette.errors import DataError
from lorgnette.files import DiskError
from lorgnette.study.config import Study, load_study
from lorgnette.study.result_rows import RowStore
from lorgnette.study.study_page import StudyReport, write_study_report
from lorgnette.study.summary_tables import print_studies
from tests.study.test_estimates import row


@pytest.fixture
def report(measured, tiny_study) -> StudyReport:
    """A report with a second seed beside the measured one, a twentieth better."""
    rows = list(measured.read().values())
    more = [
        dataclasses.replace(
            one, key=f"{one.key}-2", seed=2, loss={name: 0.95 * loss for name, loss in one.loss.items()}
        )
        for one in rows
    ]
    study = Study.parse(tiny_study.plain() | {"source": "Table 0", "about": "A <small> test."})
    return StudyReport(study, "micro", [*rows, *more])


def test_the_report_tells_claims_cells_and_differences(report):
    text = report.markdown()
    claim = next(line for line in text.splitlines() if line.startswith("| trained has less loss than frozen"))
    assert claim.split(" | ")[1] in ("agrees", "disagrees", "undecided")
    frozen = next(line for line in text.splitlines() if line.startswith("| frozen |"))
    loss = f"{report.by_cell['frozen'][0].loss['pairs'] * 0.975:.3f} ["
    assert loss in frozen and report.by_cell["frozen"][0].conditions["commit"] in frozen
    assert "| cell | scene_vqa | loss of pairs |" in text
    shuffled = 0.975 * report.by_cell["frozen"][0].loss["pairs"]
    assert re.search(rf"\| frozen \| [\d.]+ \([\d.]+\) \| {shuffled:.3f} \(", text)
    assert "- `trained`: `stages.0.vision.mode=full`" in text and "A <small> test." in text


def test_the_page_escapes_draws_and_loads_nothing(report, tmp_path):
    page, markdown = write_study_report(report, tmp_path)
    html = page.read_text(encoding="utf-8")
    assert markdown.read_text(encoding="utf-8") == report.markdown()
    assert "A &lt;small&gt; test." in html and "<script" not in html and "http" not in html.split("<main>")[1]
    assert html.count('class="chart"') == 1 + 3 + 3
    assert report.summary in html


def test_what_is_missing_or_unlike_is_marked(report):
    half = dataclasses.replace(report, rows=report.rows[:1])
    assert "1 of 2 rows are measured" in half.marks and "not measured" in half.markdown()
    old = dataclasses.replace(report.rows[0], study_digest="old")
    assert any("older than the study file" in mark for mark in dataclasses.replace(report, rows=[old]).marks)
    diverged = row("frozen", 3, failed="the loss rose")
    assert any(
        "diverged: frozen, seed 3" in m for m in dataclasses.replace(report, rows=[*report.rows, diverged]).marks
    )


def test_no_rows_and_a_page_of_somebody_else_are_refused(report, tmp_path):
    with pytest.raises(DataError, match="no row at scale micro; compute some by lorgnette study run"):
        write_study_report(dataclasses.replace(report, rows=[]), tmp_path)
    (tmp_path / "mine-micro.html").write_text("my page")
    with pytest.raises(DiskError, match="did not write"):
        write_study_report(report, tmp_path)


def test_shared_rows_have_the_cells_name_in_the_study_that_asks(measured):
    (key, *_) = measured.read()
    (found,) = measured.named({key: "mine"})
    assert found.cell == "mine" and found.key == key


def test_a_study_begins_from_another_and_replaces_no_file(tmp_path, monkeypatch):
    from lorgnette.study.config import begin_study

    monkeypatch.chdir(tmp_path)
    path = begin_study("mine", "t3")
    assert load_study(str(path)).name == "mine" and "# Table 3 of the paper" in path.read_text(encoding="utf-8")
    assert load_study(str(path)).cells == load_study("t3").cells
    with pytest.raises(DiskError, match=r"mine\.yaml: is a file that lorgnette did not write"):
        begin_study("mine", "t3")


def test_all_shipped_studies_are_listed(tmp_path):
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    print_studies(tmp_path, console)
    text = console.file.getvalue()
    assert "t3" in text and "Table 3" in text and "5 x 3" in text
    assert re.search(r"t3 .* paper .* 0 of 15 ", text)
    assert re.search(r"t4 .* micro .* 2 x 3 .* 6 of 6 ", text), "rows of t3 are t4's too"
    assert RowStore(tmp_path, shipped=False).read() == {}
