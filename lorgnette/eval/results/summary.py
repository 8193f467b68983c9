"""Results as a table for the terminal, and the mean of the four benchmarks by which the paper compares designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lorgnette.eval.results.bootstrap import Estimate
from lorgnette.eval.results.compare import Comparison
from lorgnette.eval.results.store import Result
from lorgnette.output import new_console, say


def mean_score(results: Sequence[Result]) -> Estimate:
    """The mean of several scores, as the paper's ablations have it (section 3): accuracies, and CIDEr in per cent.

    The benchmarks are independent, so that the distances to the ends of their intervals add in squares.
    """
    scores = [result.overall for result in results]
    value = float(np.mean([score.value for score in scores]))
    below, above = (
        float(np.sqrt(np.sum(np.square(distances)))) / len(scores)
        for distances in ([score.value - score.low for score in scores], [score.high - score.value for score in scores])
    )
    return Estimate(value, value - below, value + above, sum(score.count for score in scores))


def means(results: Mapping[str, Result], groups: Mapping[str, Sequence[str]]) -> dict[str, Estimate]:
    """The mean of each group of which every benchmark was asked to its end, and scored."""
    whole = {name: result for name, result in results.items() if result.scored and result.count and not result.missing}
    asked = {name.partition(":")[0]: result for name, result in whole.items()}
    return {
        group: mean_score([asked[name] for name in names])
        for group, names in groups.items()
        if set(names) <= set(asked)
    }


def print_results(
    results: Mapping[str, Result], console: Console | None = None, groups: Mapping[str, Sequence[str]] | None = None
) -> None:
    """One table: a row per benchmark and kind of question, percent with its 95 % interval, and means of groups.

    Below it, what could not be asked, what was declined, and what nobody but a server can score.
    """
    console = console or new_console()
    table = Table("task", "kind", "score", "95 %", "questions")
    for name, result in results.items():
        if not result.scored or result.missing or not result.count:
            table.add_row(name, "all", "-", "-", f"{result.count:,}", end_section=True)
            continue
        for kind, scores in result.kinds.items():
            table.add_row(name, kind, *_cells(scores))
        table.add_row(name, "all", *_cells(result.overall), style="bold", end_section=True)
    for group, mean in means(results, groups or {}).items():
        table.add_row(f"mean of {group}", "", *_cells(mean), style="bold", end_section=True)
    console.print(table)
    for name, result in results.items():
        for row in [*result.rejected.values()][:5]:
            say(console, f"{name}: not asked, {row.name}: {row.reason}")
        if len(result.rejected) > 5:
            say(console, f"{name}: {len(result.rejected) - 5:,} more were not asked; the summary names them")
        declined = [example for example in result.examples if example.declined]
        for example in declined[:5]:
            say(console, f"{name}: declined, {example.name}: {example.declined}")
        if len(declined) > 5:
            say(console, f"{name}: {len(declined) - 5:,} more were declined; the summary names them")
        if result.unclosed:
            some = ", ".join(result.unclosed[:3]) + (", ..." if len(result.unclosed) > 3 else "")
            counted = f"{len(result.unclosed):,} of {result.count:,} answers end within a thought and count as empty"
            say(console, f"{name}: {counted} ({some}); give the model more tokens (--max-tokens)")
        for note in result.notes:
            say(console, f"{name}: {note}")
        if result.missing:
            say(console, f"{name}: {result.missing:,} questions are not answered yet; scores come with the last")
        if not result.scored:
            say(console, f"{name}: the answers of split {result.settings['split']} are secret; its server scores them")


def print_comparison(name: str, found: Comparison, console: Console | None = None) -> None:
    """A table of the scores of both, the settings that differ, and what the difference means."""
    console = console or new_console()
    table = Table(name, *found.names, "difference", "95 %", "questions")
    rows = [(kind, found.before.kinds[kind], found.after.kinds[kind], found.kinds[kind]) for kind in found.kinds]
    for kind, before, after, difference in [*rows, ("all", found.before.overall, found.after.overall, found.overall)]:
        scores = (f"{before.value:.1f} %", f"{after.value:.1f} %", f"{difference.value:+.1f}")
        table.add_row(kind, *scores, f"{difference.low:+.1f} to {difference.high:+.1f}", f"{difference.count:,}")
    console.print(table)
    for setting, (old, new) in found.differing().items():
        say(console, f"{setting}: {old} -> {new}")
    say(console, found.sentence())


def _cells(scores: Estimate) -> tuple[str, str, str]:
    return f"{scores.value:.1f} %", f"{scores.low:.1f} - {scores.high:.1f}", f"{scores.count:,}"
