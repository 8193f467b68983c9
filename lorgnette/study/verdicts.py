"""Verdicts: each claim of a study agrees with the rows, disagrees, or is undecided, and what would decide it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lorgnette.study.config import Claim, Study
from lorgnette.study.estimates import MOST_SEEDS, SeedEstimate, difference
from lorgnette.study.result_rows import StudyRow, provenance

MOST_QUESTIONS = 100
"""Times as many questions beyond which there is hardly a difference to be found."""
Word = Literal["agrees", "disagrees", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A claim as the rows decide it. `found`: the measure of `cell` minus that of `over`; None without common seeds."""

    claim: Claim
    found: SeedEstimate | None
    word: Word
    needs: str
    """Seeds or questions that would decide it, from the measured spread; empty where it is decided."""
    marks: tuple[str, ...] = ()
    """Sentences about rows that are not alike; see `provenance`."""


def judge_claims(study: Study, scale: str, rows: Iterable[StudyRow]) -> list[Verdict]:
    """Judge each claim of a study by the rows of its cells. Rows of failed trainings hold no measures, and are marked.

    Raises: SettingsError for a measure that the rows have not.
    """
    by_cell = measured_rows(rows)
    verdicts = []
    for claim in study.claims:
        sides = [by_cell[claim.cell], by_cell[claim.over]]
        marks = provenance(study, [row for side in sides for row in side])
        failed = [row for side in sides for row in side if row.failed]
        marks += [f"training diverged: {row.cell}, seed {row.seed}" for row in failed]
        whole = [[row for row in side if not row.failed] for side in sides]
        found = difference(whole[0], whole[1], claim.by, claim.level) if all(whole) else None
        word = judge(claim, found)
        verdicts.append(Verdict(claim, found, word, _needs(claim, found) if word == "undecided" else "", tuple(marks)))
    return verdicts


def measured_rows(rows: Iterable[StudyRow]) -> defaultdict[str, list[StudyRow]]:
    """Rows by the name of their cell, in order of their seeds."""
    by_cell = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.seed):
        by_cell[row.cell].append(row)
    return by_cell


def judge(claim: Claim, found: SeedEstimate | None) -> Word:
    """A verdict is given where the whole interval lies on one side; two seeds at least, and some spread, are needed."""
    if found is None or found.seeds < 2 or not found.reach:
        return "undecided"
    if claim.kind == "equivalent":
        inside = -claim.margin < found.low and found.high < claim.margin
        outside = found.low > claim.margin or found.high < -claim.margin
    else:
        sign = 1 if claim.kind == "greater" else -1
        low, high = sorted((sign * found.low, sign * found.high))
        inside, outside = low > claim.margin, high < claim.margin
    return "agrees" if inside else "disagrees" if outside else "undecided"


def _needs(claim: Claim, found: SeedEstimate | None) -> str:
    if found is None or found.seeds < 2:
        return "two seeds of both cells at least"
    if not found.reach:
        return "a measure that varies: all seeds gave the same"
    if claim.kind == "equivalent":
        distance = abs(abs(found.value) - claim.margin)
    else:
        distance = abs((1 if claim.kind == "greater" else -1) * found.value - claim.margin)
    count = found.seeds_needed(distance)
    if count is not None:
        return f"about {count} seeds, if the difference is what was found"
    times = (1.96 * found.question_error / distance) ** 2 if distance else math.inf
    if 1 < times < MOST_QUESTIONS:
        return f"about {times:.0f} times as many questions, and more seeds"
    return f"more than {MOST_SEEDS:,} seeds or {MOST_QUESTIONS} times as many questions: there is hardly a difference"
