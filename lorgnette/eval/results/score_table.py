"""Evaluations of several models side by side: a table for the terminal, and as CSV, LaTeX or Markdown."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.results.bootstrap import Estimate
from lorgnette.eval.results.compare import Comparison, compare_folders
from lorgnette.eval.results.store import folders_in
from lorgnette.files import write_text

SCORE_HEADINGS = (
    "task",
    "model",
    "score",
    "low",
    "high",
    "difference",
    "difference low",
    "difference high",
    "questions",
)
TABLE_FORMS = (".csv", ".tex", ".md")


@dataclass(frozen=True)
class ScoreRow:
    """One model on one task; the difference is to the first model, None of the first itself."""

    task: str
    model: str
    score: Estimate
    difference: Estimate | None

    def cells(self) -> list[str]:
        """Figures under `SCORE_HEADINGS`, in percent and points."""
        found = [self.score.value, self.score.low, self.score.high]
        beside = self.difference
        differences = ["", "", ""] if beside is None else [f"{x:+.2f}" for x in (beside.value, beside.low, beside.high)]
        return [self.task, self.model, *(f"{x:.2f}" for x in found), *differences, f"{self.score.count}"]


def names_of_folders(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell the folders apart: `ours` and `theirs`, or `a/results` and `b/results`."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise SettingsError(f"{folders[0]} is given twice; give each folder once")


def compare_all(folders: Sequence[Path], page: Path | None = None, most: int = 100) -> dict[str, list[Comparison]]:
    """Every folder after the first compared with it, for each task that all have in common.

    page: of two folders, with at most `most` answers that improved and that got worse; see `page_of`.

    Raises: DataError if a folder holds no results, they have no task in common, or cannot be paired.
    """
    names, found = names_of_folders(folders), [folders_in(folder) for folder in folders]
    if all(len(one) == 1 for one in found):  # two folders of one task each, whatever they call it
        (task,) = found[0]
        found = [dict.fromkeys([task], path) for one in found for path in one.values()]
    tasks = [task for task in found[0] if all(task in one for one in found)]
    if not tasks:
        held = "; ".join(f"{name}: {', '.join(one)}" for name, one in zip(names, found, strict=True))
        raise DataError(f"the folders have no task in common ({held}): nothing to compare")
    return {
        task: [
            compare_folders(found[0][task], one[task], page_of(page, task, tasks), most, (names[0], name))
            for name, one in zip(names[1:], found[1:], strict=True)
        ]
        for task in tasks
    }


def page_of(page: Path | None, task: str, tasks: Collection[str]) -> Path | None:
    """The page of one task: with its name where there are several."""
    return page if page is None or len(tasks) == 1 else page.with_stem(f"{page.stem}-{task}")


def rows_of(comparisons: Mapping[str, Sequence[Comparison]]) -> list[ScoreRow]:
    """A row for each task and model, the first model's without a difference."""
    rows = []
    for task, found in comparisons.items():
        rows.append(ScoreRow(task, found[0].names[0], found[0].before.overall, None))
        rows += [ScoreRow(task, one.names[1], one.after.overall, one.overall) for one in found]
    return rows


def print_scores(console: Console, rows: Sequence[ScoreRow]) -> None:
    """Print the rows as a table."""
    table = Table("task", "model", "score", "95 %", "difference", "95 %", "questions")
    for row in rows:
        score, other = row.score, row.difference
        beside = ("", "") if other is None else (f"{other.value:+.1f}", f"{other.low:+.1f} to {other.high:+.1f}")
        cells = (f"{score.value:.1f} %", f"{score.low:.1f} - {score.high:.1f}", *beside, f"{score.count:,}")
        table.add_row(row.task, row.model, *cells)
    console.print(table)


def write_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write the rows in the form that the file's ending names. Raises: SettingsError for another ending; DiskError."""
    cells = [SCORE_HEADINGS, *(row.cells() for row in rows)]
    if path.suffix == ".csv":
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(cells)
        text = buffer.getvalue()
    elif path.suffix == ".md":
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
        rule = "|" + "|".join(["---", "---", *["---:"] * (len(SCORE_HEADINGS) - 2)]) + "|"
        text = "\n".join([lines[0], rule, *lines[1:]]) + "\n"
    elif path.suffix == ".tex":
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in cells]
        body = "\n".join([r"\hline", lines[0], r"\hline", *lines[1:], r"\hline"])
        text = f"\\begin{{tabular}}{{ll{'r' * (len(SCORE_HEADINGS) - 2)}}}\n{body}\n\\end{{tabular}}\n"
    else:
        raise SettingsError(f"--table {path}: the ending says the form; use one of {', '.join(TABLE_FORMS)}")
    write_text(path, text)


def _latex(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, f"\\{sign}")
    return text
