"""docs/studies is what its script makes of the rows in studies/results, and README.md has its table."""

from __future__ import annotations

import pytest

from scripts import studies
from tests.house.source import ROOT

REPORTS = {one.name: studies.report(one) for one in studies.studies()}
MEASURED = [name for name, report in REPORTS.items() if studies.is_measured(report)]


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_of_a_study_is_fresh(name):
    report = REPORTS[name]
    page = studies.FOLDER / f"{name}-{report.scale}.md"
    assert page.read_text(encoding="utf-8") == report.markdown(), "run make studies"
    assert report.summary in page.with_suffix(".html").read_text(encoding="utf-8")


def test_the_summary_is_fresh():
    reports = list(REPORTS.values())
    assert (studies.FOLDER / "README.md").read_text(encoding="utf-8") == studies.index(reports), "run make studies"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == studies.fill(readme, reports), "run make studies"


def test_no_page_is_of_a_study_without_rows():
    there = {path.stem.removesuffix(f"-{studies.SCALE}") for path in studies.FOLDER.glob("*.html")}
    assert there == set(MEASURED)


def test_the_readme_has_ten_findings():
    rows = [row for report in REPORTS.values() for row in studies.findings(report)]
    assert len(rows) >= studies.IN_README and all(row.words and row.seeds != "None" for row in rows)
