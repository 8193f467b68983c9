"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from lorgnette.eval.bootstrap import Estimate
from lorgnette.eval.results import Result


def print_results(results: Mapping[str, Result], console: Console | None = None) -> None:
    """One table: a row per benchmark and kind of question, percent with its 95 % interval."""
    table = Table("task", "kind", "score", "95 %", "questions")
    for name, result in results.items():
        for kind, scores in result.kinds.items():
            table.add_row(name, kind, *_cells(scores))
        table.add_row(name, "all", *_cells(result.overall), style="bold", end_section=True)
    (console or Console()).print(table)


def _cells(scores: Estimate) -> tuple[str, str, str]:
    return f"{scores.value:.1f} %", f"{scores.low:.1f} - {scores.high:.1f}", f"{scores.count:,}"
