"""The report of a study, as a page and as Markdown: what the paper found, what the rows say, and what they cannot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from lorgnette.errors import DataError
from lorgnette.files import is_own_page, replace_text, write_text
from lorgnette.report.charts import Interval, interval_chart, scatter_chart
from lorgnette.report.html import render_page
from lorgnette.report.line_chart import Panel, Series, line_chart
from lorgnette.report.palette import GROUPS
from lorgnette.report.svg import Svg
from lorgnette.study.cells import jobs_of
from lorgnette.study.config import Study
from lorgnette.study.estimates import LOSS, SCORE, SeedEstimate, difference, estimate_of
from lorgnette.study.result_rows import RowStore, StudyRow, provenance
from lorgnette.study.summary_tables import differences
from lorgnette.study.verdicts import Verdict, judge_claims, measured_rows

CLAIM_HEADINGS = ("claim", "verdict", "difference", "would be found", "beside it", "would decide", "seeds", "marks")
CELL_HEADINGS = (
    *("cell", "paper", "ours", "image-shuffled", "loss", "shuffled loss", "seeds", "steps", "FLOPs", "seconds"),
    *("trained", "GiB", "device", "commit"),
)
SPENT = (("step", 0), ("images", 1), ("text tokens", 2))
"""Horizontal scales of the curves (Figure 4), and their places in a point of `StudyRow.curve`."""
VERDICT_HUES = {"agrees": "right", "disagrees": "wrong", "undecided": "soft"}


@dataclass(frozen=True)
class StudyReport:
    """A study with the rows of one scale that are there."""

    study: Study
    scale: str
    rows: Sequence[StudyRow]

    @cached_property
    def by_cell(self) -> dict[str, list[StudyRow]]:
        """Rows that hold measures, by cell, in the order of the study."""
        found = measured_rows(row for row in self.rows if not row.failed)
        return {cell.name: found[cell.name] for cell in self.study.cells if found[cell.name]}

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return judge_claims(self.study, self.scale, self.rows)

    @property
    def marks(self) -> list[str]:
        """Sentences about rows that are missing, failed, or not alike."""
        wanted = len(self.study.cells) * self.study.scale(self.scale).seeds
        missing = [f"{len(self.rows)} of {wanted} rows are measured"] if len(self.rows) < wanted else []
        failed = [f"training diverged: {row.cell}, seed {row.seed}: {row.failed}" for row in self.rows if row.failed]
        return [*missing, *failed, *provenance(self.study, self.rows)]

    @property
    def summary(self) -> str:
        """The verdicts in a sentence."""
        counts = Counter(verdict.word for verdict in self.verdicts)
        return (
            f"Of {len(self.verdicts)} claims made before anything ran, {counts['agrees']} agree with the rows,"
            f" {counts['disagrees']} disagree, {counts['undecided']} are undecided."
        )

    def claim_rows(self) -> list[list[str]]:
        """Cells of the table of claims."""
        found = []
        for verdict in self.verdicts:
            claim, one = verdict.claim, verdict.found
            other = "loss" if not claim.by.startswith("loss") else "score"
            sides = [self.by_cell.get(name) for name in (claim.cell, claim.over)]
            beside = difference(sides[0], sides[1], other, claim.level) if sides[0] and sides[1] else None
            reach = "" if one is None or one.seeds < 2 else f"{one.detectable:.2g}"
            said = "" if beside is None else f"{other} {_signed(beside)}"
            marks = "; ".join(verdict.marks)
            seeds = "0" if one is None else str(one.seeds)
            found.append([claim.sentence, verdict.word, _signed(one), reach, said, verdict.needs, seeds, marks])
        return found

    def cell_rows(self) -> list[list[str]]:
        """Cells of the table of measures."""
        found = []
        for cell in self.study.cells:
            rows = self.by_cell.get(cell.name, [])
            paper = "" if cell.paper is None else f"{cell.paper:g}"
            if not rows:
                found.append([cell.name, paper, "not measured", *[""] * (len(CELL_HEADINGS) - 3)])
                continue
            measures = [str(estimate_of(rows, name)) for name in ("score", "blind", "loss", "loss_shuffled")]
            cost = {name: fmean(row.cost[name] for row in rows) for name in rows[0].cost}
            numbers = [f"{cost['flops']:.2e}", f"{cost['seconds']:,.0f}", f"{cost['trained']:,.0f}"]
            where = [_each(row.conditions.get(name, "?") for row in rows) for name in ("device", "commit")]
            counts = [str(len(rows)), f"{cost['steps']:,.0f}"]
            found.append([cell.name, paper, *measures, *counts, *numbers, f"{cost['peak_gib']:.2f}", *where])
        return found

    def markdown(self) -> str:
        """The report as Markdown: tables and sentences, without charts."""
        parts = [
            f"# {self.study.name}: {self.study.question}",
            f"{self.study.source or 'Beyond the paper'}, {self.scale} scale.",
        ]
        parts += [self.summary, *(f"- {mark}" for mark in self.marks)]
        parts += ["## Claims", _table(CLAIM_HEADINGS, self.claim_rows())]
        parts += ["## Cells", _table(CELL_HEADINGS, self.cell_rows())]
        parts += ["Parts of the score and of the loss, image-shuffled in brackets:"]
        parts += [_table(*part_table(self.by_cell))]
        changes = [f"- `{cell.name}`: `{differences(self.study, self.scale, cell)}`" for cell in self.study.cells]
        parts += ["Differences from the base:", "\n".join(changes), self.study.about.strip()]
        return "\n\n".join(filter(None, parts)) + "\n"

    def html(self) -> str:
        """The report as a self-contained page."""
        hues = [VERDICT_HUES[verdict.word] for verdict in self.verdicts]
        cells = self.study.cells
        part_headings, parts = part_table(self.by_cell)
        names = {name: f"h{number % GROUPS}" for number, name in enumerate(self.by_cell)}
        values: dict[str, Any] = {
            "name": self.study.name,
            "question": self.study.question,
            "source": self.study.source,
            "about": self.study.about,
            "scale": self.scale,
            "summary": self.summary,
            "marks": self.marks,
            "claim_headings": CLAIM_HEADINGS,
            "claims": list(zip(self.claim_rows(), hues, strict=True)),
            "cell_headings": CELL_HEADINGS,
            "cells": self.cell_rows(),
            "part_headings": part_headings,
            "parts": parts,
            "tasks": list(next(iter(self.by_cell.values()))[0].tasks) if self.by_cell else [],
            "scores": self._scores(),
            "pareto": self._pareto(names),
            "curves": self._curves(names),
            "score_curves": self._score_curves(names),
            "hues": [(hue, name) for name, hue in names.items()],
            "differences": [(cell.name, differences(self.study, self.scale, cell)) for cell in cells],
        }
        return render_page("study.html.jinja", values)

    def _scores(self) -> Svg:
        found = []
        for name, rows in self.by_cell.items():
            marks = []
            for measure, hue in (("blind", "blind"), ("score", "see")):
                one = estimate_of(rows, measure)
                reach = one.reach if one.seeds > 1 else 0.0
                marks.append(Interval(measure, one.value, one.value - reach, one.value + reach, hue))
            found.append((name, marks))
        most = max((mark.high for _, marks in found for mark in marks), default=0.0)
        return interval_chart(found, "%", bounds=(0.0, 10.0 * math.ceil(most / 10)))

    def _pareto(self, hues: dict[str, str]) -> list[Svg]:
        """Score against FLOPs, seconds and memory."""
        axes = {"flops": ("training TFLOPs", 1e12), "seconds": ("training seconds", 1), "peak_gib": ("peak GiB", 1)}
        score = {name: estimate_of(rows, "score").value for name, rows in self.by_cell.items()}
        return [
            scatter_chart(
                [
                    (name, fmean(row.cost[key] for row in rows) / unit, score[name], hues[name])
                    for name, rows in self.by_cell.items()
                ],
                (words, "score"),
            )
            for key, (words, unit) in axes.items()
        ]

    def _score_curves(self, hues: dict[str, str]) -> list[Svg]:
        """Score and held-out loss during training over steps, images and text tokens (Figure 4)."""
        if not any(row.score_curve for rows in self.by_cell.values() for row in rows):
            return []
        charts = []
        for unit, place in SPENT:
            panels = [
                Panel(f"{words} over {unit}", _means(self.by_cell, "score_curve", place, value, hues), 180)
                for words, value in (("score", SCORE), ("held-out loss", LOSS))
            ]
            charts.append(line_chart(panels, f"Score and held-out loss of {len(hues)} cells over {unit}", unit=unit))
        return charts

    def _curves(self, hues: dict[str, str]) -> list[Svg]:
        """Training loss over steps, images and text tokens: each cell's mean over its seeds."""
        charts = []
        for unit, place in SPENT:
            series = _means(self.by_cell, "curve", place, -1, hues)
            panel = Panel(f"loss over {unit}", series, 180, logarithmic=True)
            charts.append(line_chart([panel], f"Training loss of {len(series)} cells over {unit}", unit=unit))
        return charts


def study_report(study: Study, where: str, scale: str, store: RowStore) -> tuple[StudyReport, int]:
    """The report of a study on a store's rows, those of other studies' equal cells among them; and its number of seeds.

    where: name or path of the study. Raises: as `jobs_of`.
    """
    seeds = max([study.scale(scale).seeds, *(row.seed for row in store.read().values())])
    keys = {job.key: job.cell.name for job in jobs_of(study, where, scale, seeds)}
    return StudyReport(study, scale, store.named(keys)), seeds


def part_table(by_cell: Mapping[str, Sequence[StudyRow]]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of parts: each benchmark of the score and each source of the held-out loss.

    Values are means over seeds, image-shuffled in brackets.
    """
    rows = [row for found in by_cell.values() for row in found]
    tasks = list(dict.fromkeys(name for row in rows for name in row.tasks))
    sources = list(dict.fromkeys(name for row in rows for name in row.loss))
    table = []
    for cell, found in by_cell.items():
        cells = [cell]
        for name in tasks:
            pairs = [(row.tasks[name].scores, row.tasks[name].blind) for row in found if name in row.tasks]
            right, wrong = (100 * fmean(fmean(pair[side]) for pair in pairs) for side in (0, 1))
            cells.append(f"{right:.1f} ({wrong:.1f})")
        for name in sources:
            right, wrong = fmean(row.loss[name] for row in found), fmean(row.loss_shuffled[name] for row in found)
            cells.append(f"{right:.3f} ({wrong:.3f})")
        table.append(cells)
    return ["cell", *tasks, *(f"loss of {name}" for name in sources)], table


def _means(
    by_cell: Mapping[str, Sequence[StudyRow]], curve: str, place: int, value: int, hues: Mapping[str, str]
) -> list[Series]:
    """One line for each cell, the mean over its seeds. place, value: of the numbers in a point of the curve."""
    series = []
    for name, rows in by_cell.items():
        points = zip(*(getattr(row, curve) for row in rows), strict=False)
        mean = [(fmean(p[place] for p in point), fmean(p[value] for p in point)) for point in points]
        series.append(Series([mean], name, hues[name]))
    return series


def write_study_report(report: StudyReport, folder: Path) -> tuple[Path, Path]:
    """Write `NAME-SCALE.html` and `.md` to a folder; return both paths.

    Raises: DataError if no row is there; DiskError if a file cannot be written, or the page is somebody else's.
    """
    if not report.rows:
        raise DataError(
            f"study {report.study.name}: no row at scale {report.scale}; compute some by lorgnette study run"
        )
    page = folder / f"{report.study.name}-{report.scale}.html"
    replace_text(page, report.html(), is_own_page)
    write_text(page.with_suffix(".md"), report.markdown())
    return page, page.with_suffix(".md")


def _signed(one: SeedEstimate | None) -> str:
    if one is None:
        return "not measured"
    if one.seeds < 2:
        return f"{one.value:+.3g} (one seed)"
    return f"{one.value:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def _each(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
