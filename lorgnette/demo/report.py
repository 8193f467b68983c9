"""The report of the demo: tables for the terminal and one self-contained page. Every word comes from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.demo.scores import DemoResults, mistakes, results_json, verdicts
from lorgnette.eval.results.sighted import Line, ShownExample
from lorgnette.files import is_own_page, replace_text, write_json
from lorgnette.output import say
from lorgnette.report.charts import Interval, interval_chart
from lorgnette.report.html import render_page
from lorgnette.report.svg import Svg
from lorgnette.report.thumbnails import data_uri, thumbnail
from lorgnette.report.training_curve import training_curve

_COLOURS = {"learned": "green", "a little": "yellow", "not learned": "red"}


def write_report(folder: str | Path, results: DemoResults) -> Path:
    """Write `report.html` and `results.json` to the folder; return the path of the page.

    Raises: DiskError if the folder cannot be written, or the page is a file of somebody else.
    """
    path = Path(folder) / "report.html"
    replace_text(path, render(results), is_own_page)
    write_json(path.with_name("results.json"), results_json(results))
    return path


def render(results: DemoResults) -> str:
    """The page as HTML."""
    *kinds, overall = results.lines
    values: dict[str, Any] = {
        "results": results,
        "kinds": kinds,
        "kinds_chart": _chart([*kinds, overall]),
        "overall": overall,
        "benchmarks": results.benchmark_lines,
        "benchmarks_chart": _chart(results.benchmark_lines),
        "verdicts": verdicts(results),
        "mistakes": mistakes(results.after),
        "curve": training_curve(results.curve),
        "examples": [(data_uri(thumbnail(example.picture, 360)), example) for example in results.examples],
        "right": sum(example.correct for example in results.examples),
        "duration": duration(results.seconds),
    }
    return render_page("demo.html.jinja", values)


def _chart(found: Sequence[Line]) -> Svg:
    """Percent right before, after and blind."""
    rows = []
    for line in found:
        scores = {"before": (line.before, "soft"), "blind": (line.blind, "blind"), "after": (line.after, "see")}
        marks = [Interval(name, one.value, one.low, one.high, hue) for name, (one, hue) in scores.items()]
        rows.append((line.kind, marks))
    return interval_chart(rows, "%", bounds=(0, 100))


def duration(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def print_table(console: Console, results: DemoResults) -> None:
    """The tables before / after / blind, with 95 % intervals, and what they say."""
    *kinds, overall = results.lines
    table = _table("Right answers about unseen drawings, in percent [95% interval]", kinds)
    table.add_section()
    table.add_row(*_cells(overall), style="bold")
    console.print(table)
    if results.benchmarks:
        console.print(_table("The built-in benchmarks, in percent of their own metrics", results.benchmark_lines))
    for sentence in verdicts(results):
        say(console, sentence)


def _table(title: str, found: Sequence[Line]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("questions")
    for heading in ("before", "after", "blind", "after - blind"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for line in found:
        table.add_row(*_cells(line))
    return table


def _cells(line: Line) -> list[Text]:
    scores = [Text(str(score)) for score in (line.before, line.after, line.blind)]
    gain = Text(f"{line.gain.value:+.1f} [{line.gain.low:+.1f}, {line.gain.high:+.1f}]")
    name = Text(f"{line.kind} ({line.after.count:,})")
    return [name, *scores, gain, Text(line.verdict, style=_COLOURS[line.verdict])]


def print_examples(console: Console, examples: Sequence[ShownExample]) -> None:
    """Each example's question, answer and truth; wrong answers are marked."""
    table = Table(title="Unseen drawings", title_justify="left")
    for heading in ("", "kind", "question", "answer", "truth"):
        table.add_column(heading)
    for example in examples:
        mark = Text("right", style="green") if example.correct else Text("wrong", style="red")
        shown = (example.kind, example.question, example.answer or "(nothing)", example.truth)
        table.add_row(mark, *map(Text, shown))
    console.print(table)
