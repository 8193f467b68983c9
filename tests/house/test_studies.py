"""docs/studies is what its script makes of the rows in studies/results, and README.md has its table."""

from __future__ import annotations

from functools import cache

import pytest

from scripts import studies
from tests.house.source import ROOT

STUDIES = {one.name: one for one in studies.studies()}
report = cache(lambda name: studies.report(STUDIES[name]))


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_a_study_is_fresh(name):
    """There is none where nothing is measured."""
    found = report(name)
    page = studies.FOLDER / f"{name}-{found.scale}.md"
    assert page.exists() == page.with_suffix(".html").exists() == studies.is_measured(found), "run make studies"
    if page.exists():
        assert page.read_text(encoding="utf-8") == found.markdown(), "run make studies"
        assert found.summary in page.with_suffix(".html").read_text(encoding="utf-8")


def test_the_summary_is_fresh():
    reports = [report(name) for name in STUDIES]
    assert (studies.FOLDER / "README.md").read_text(encoding="utf-8") == studies.index(reports), "run make studies"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == studies.fill(readme, reports), "run make studies"


def test_every_page_is_of_a_study():
    there = {path.stem.removesuffix(f"-{studies.SCALE}") for path in studies.FOLDER.glob("*.html")}
    assert there <= STUDIES.keys()


def test_the_readme_has_ten_findings():
    rows = [row for name in STUDIES for row in studies.findings(report(name))]
    assert len(rows) >= studies.IN_README and all(row.words and row.seeds != "None" for row in rows)
