"""Write docs/studies: a page for each study that lorgnette carries rows of, and the table of what the paper found.

usage: make studies, or PYTHONPATH=. python scripts/studies.py

Rows are in studies/results. The first ten findings stand in README.md too, between <!-- studies --> and
<!-- /studies -->.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lorgnette.study.config import Claim, Study, load_study
from lorgnette.study.estimates import SeedEstimate
from lorgnette.study.result_rows import RowStore
from lorgnette.study.study_page import StudyReport, study_report
from lorgnette.study.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "studies"
ORDER = ("t1", "t2", "t3", "t11", "t4", "t5", "t6", "t7", "t12", "t13", "splitting", "figure4")
"""Studies of the paper, in the order of its findings; those beyond the paper follow by name."""
IN_README = 10
SPAN = re.compile(r"(<!-- studies -->\n).*?(<!-- /studies -->)", re.DOTALL)
SCALE = "micro"


class Finding(NamedTuple):
    """A row of the summary: the words of the paper, its numbers, and the verdicts about them here."""

    study: str
    words: str
    paper: str
    by_score: str
    by_loss: str
    seeds: str
    has_page: bool


def studies() -> list[Study]:
    """The studies that lorgnette carries, the paper's first."""
    there = {path.stem: load_study(str(path)) for path in sorted((ROOT / "studies").glob("*.yaml"))}
    first = [there.pop(name) for name in ORDER if name in there]
    return [*first, *there.values()]


def report(study: Study) -> StudyReport:
    """The report of a study on the rows that lorgnette carries, at the scale of two cores."""
    with tempfile.TemporaryDirectory() as empty:
        return study_report(study, study.name, SCALE, RowStore(Path(empty)))[0]


def is_measured(one: StudyReport) -> bool:
    """Return whether a claim has rows of both its cells: a study that shares a cell with another has rows before."""
    return any(verdict.found is not None for verdict in one.verdicts)


def findings(one: StudyReport) -> Iterator[Finding]:
    """What the paper found that a study asks about."""
    for claim in one.study.claims:
        if not claim.finding:
            continue
        about = [v for v in one.verdicts if (v.claim.cell, v.claim.over) == (claim.cell, claim.over)]
        said = {"loss": "", "score": ""}
        for verdict in about:
            said["loss" if verdict.claim.by.startswith("loss") else "score"] = _verdict(verdict)
        counts = sorted({verdict.found.seeds for verdict in about if verdict.found})
        yield Finding(
            one.study.name,
            claim.finding,
            _paper(one.study, claim),
            said["score"],
            said["loss"],
            str(*counts[:1]),
            is_measured(one),
        )


def _paper(study: Study, claim: Claim) -> str:
    cells = [study.cell(name) for name in (claim.cell, claim.over)]
    if any(cell.paper is None for cell in cells):
        return ""
    return " against ".join(f"{cell.paper:g}" for cell in cells)


def _verdict(verdict: Verdict) -> str:
    if verdict.found is None:
        return "not measured"
    return f"{verdict.word}, {_interval(verdict.found)}"


def _interval(found: SeedEstimate) -> str:
    if found.seeds < 2:
        return f"{found.value:+.3g} (one seed)"
    digits = 1 if abs(found.value) >= 1 or found.reach >= 1 else 3
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


HEADINGS = ("the paper found", "its scores", "here, by score", "here, by held-out loss")


def summary(rows: list[Finding], folder: str) -> str:
    """The findings as a Markdown table. folder: prefix of links to the studies' pages; empty for none."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in rows:
        words = f"[{row.words}]({folder}{row.study}-{SCALE}.md)" if row.has_page else row.words
        lines.append((words, row.paper, row.by_score or "not asked", row.by_loss or "not asked"))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


ABOUT = """# Studies

Questions of design, each answered by trained cells: [how to ask one](../howto/study.md). These are the paper's own at
the scale of two cores, with a model of 3 million parameters, and some beyond the paper. Claims were written down
before anything ran, each with the measure that decides it. A verdict needs a whole 95% interval over seeds and
questions on one side; "undecided" is an answer, and the study's page says how many seeds or questions would decide
it. Scores and losses are differences between the two cells.

What this scale can say is the sign of a difference, for models that are trained for minutes on drawings: of the four
roles whose mean is the score only the one of VQAv2 rises above image-shuffled answers, so that held-out loss tells
cells apart far more finely. A disagreement is not a refutation of the paper.

"""


def write() -> None:
    """Write docs/studies and fill README.md."""
    FOLDER.mkdir(exist_ok=True)
    reports = [report(study) for study in studies()]
    for one in reports:
        if is_measured(one):
            name = f"{one.study.name}-{one.scale}"
            (FOLDER / f"{name}.md").write_text(one.markdown(), encoding="utf-8")
            (FOLDER / f"{name}.html").write_text(one.html(), encoding="utf-8")
    (FOLDER / "README.md").write_text(index(reports), encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), reports), encoding="utf-8")


def index(reports: list[StudyReport]) -> str:
    """docs/studies/README.md."""
    rows = [finding for one in reports for finding in findings(one)]
    lines = ["| study | question | rows | page |\n", "|---|---|---|---|\n"]
    for one in reports:
        name, count = f"{one.study.name}-{one.scale}", len(one.study.cells) * one.study.scale(one.scale).seeds
        pages = f"[Markdown]({name}.md), [with charts]({name}.html)" if is_measured(one) else "not measured yet"
        lines.append(f"| {one.study.name} | {one.study.question} | {len(one.rows)} of {count} | {pages} |\n")
    return f"{ABOUT}## What the paper found\n\n{summary(rows, '')}\n## All studies\n\n{''.join(lines)}"


def fill(text: str, reports: list[StudyReport]) -> str:
    """README.md with its table of findings."""
    rows = [finding for one in reports for finding in findings(one)][:IN_README]
    return SPAN.sub(lambda span: span[1] + summary(rows, "docs/studies/") + span[2], text)


if __name__ == "__main__":
    write()
