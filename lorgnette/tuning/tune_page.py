"""Results of a tuning: in the terminal, as `report.html` and `results.json`, and as a section of the model card."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lorgnette.eval.metrics import metric_named
from lorgnette.eval.results.bootstrap import Estimate
from lorgnette.eval.results.compare import compare
from lorgnette.eval.results.sighted import Asked, Line, ShownExample, example_from, line_of, plain_line, show_fairly
from lorgnette.eval.results.store import Result
from lorgnette.eval.row_questions import Choice
from lorgnette.files import is_own_page, replace_text, write_json
from lorgnette.output import say
from lorgnette.report.charts import Interval, interval_chart
from lorgnette.report.html import render_page
from lorgnette.report.thumbnails import data_uri
from lorgnette.report.training_curve import curve_from_log, training_curve
from lorgnette.run import Run
from lorgnette.train.data import left_out
from lorgnette.train.logging.log import read_log
from lorgnette.tuning.tune_data import TuneData

FEW_QUESTIONS = 30
"""Questions below which a sentence says that the intervals are wide."""
SHOWN = 12
"""Held-out questions on the page."""


@dataclass(frozen=True)
class TuneResults:
    """Everything that a tuning found. Scores are in percent."""

    model: str
    """The model that was tuned."""
    folder: Path
    data: TuneData
    choice: Choice
    before: Result
    after: Result
    asked: Asked | None
    """The same held-out questions before, after and blind; None where no question shows a picture."""
    seconds: float
    run: Run

    @cached_property
    def improvement(self) -> Estimate:
        """After minus before on the held-out questions, in points, with its paired 95 % interval."""
        return compare(self.before, self.after).overall

    @cached_property
    def line(self) -> Line | None:
        """Before, after and blind with what looking is worth; None where there is no blind score."""
        return None if self.asked is None else line_of("held out", self.asked)

    @property
    def chat(self) -> str:
        """The command that opens a chat with the tuned model."""
        return f"lorgnette chat --model {shlex.quote(str(self.folder))}"

    def sentences(self) -> list[str]:
        """Verdict of the numbers, in sentences."""
        after, gained = self.after.overall, self.improvement
        better = gained.low > 0 if metric_named(self.choice.metric).higher_is_better else gained.high < 0
        judged = "better than before, by more than chance explains" if better else "not clearly better than before"
        said = [
            f"On {after.count:,} held-out questions the tuned model reaches {after} ({self.choice.metric}), and before"
            f" tuning {self.before.overall}: {gained.value:+.1f} points [{gained.low:+.1f}, {gained.high:+.1f}],"
            f" {judged}."
        ]
        if self.line is not None:
            looks = self.line.verdict != "not learned"
            verdict = "it looks at the pictures" if looks else "it is not clear that it looks at the pictures"
            said.append(
                f"Blind, each question with another row's picture, it reaches {self.line.blind}: {verdict}"
                f" ({self.line.gain.value:+.1f} points [{self.line.gain.low:+.1f}, {self.line.gain.high:+.1f}])."
            )
        if after.count < FEW_QUESTIONS:
            said.append(f"{after.count} questions are few: hold out more rows before you rely on these scores.")
        return said


CAVEAT = "The checkpoint that is kept has the lowest loss on these held-out rows: their scores are slightly flattering."


def print_results(console: Console, results: TuneResults) -> None:
    """Print the scores with their intervals, and what they say."""
    table = Table("held-out questions", "score", "95 %")
    rows = {"before": results.before.overall, "after": results.after.overall}
    rows |= {"after, blind": results.line.blind} if results.line else {}
    for name, one in rows.items():
        table.add_row(name, f"{one.value:.1f} %", f"{one.low:.1f} - {one.high:.1f}")
    console.print(table)
    for sentence in results.sentences():
        say(console, sentence)
    say(console, f"Report: {results.folder / 'report.html'}")
    say(console, "Talk to the model: ", end="")
    say(console, results.chat, style="bold")


def write_page(results: TuneResults) -> Path:
    """Write `report.html` and `results.json`; return the path of the page. Raises: DiskError."""
    path = results.folder / "report.html"
    replace_text(path, render(results), is_own_page)
    write_json(path.with_name("results.json"), plain_results(results))
    return path


def render(results: TuneResults) -> str:
    """The page as HTML."""
    facts = [(one.config, one.facts) for one in results.data.prepared]
    files = [
        (config.path, config.kind, found["rows"], found["refused"], trained, held)
        for (config, found), trained, held in zip(facts, results.data.trained, results.data.held_out, strict=True)
    ]
    scores = {"before": (results.before.overall, "soft"), "after": (results.after.overall, "see")}
    scores |= {"blind": (results.line.blind, "blind")} if results.line else {}
    marks = [Interval(name, one.value, one.low, one.high, hue) for name, (one, hue) in scores.items()]
    log = read_log(results.folder / "log.jsonl")
    losses = [(row["total_step"], row["losses"]) for row in read_log(results.folder / "validation.jsonl")]
    values: dict[str, Any] = {
        "results": results,
        "sentences": [*results.sentences(), CAVEAT],
        "chart": interval_chart([(f"{results.after.count:,} held-out questions", marks)], "%"),
        "legend_of": [(hue, name) for name, (_, hue) in scores.items()],
        "files": files,
        "refusals": [sentence for one in results.data.prepared for sentence in left_out(one)],
        "examples": [(_picture(results, number), one) for number, one in _examples(results)],
        "curve": training_curve(curve_from_log(log)),
        "losses": losses,
        "recipe": (results.folder / "recipe.yaml").read_text(encoding="utf-8"),
        "minutes": results.seconds / 60,
    }
    return render_page("tune.html.jinja", values)


def _examples(results: TuneResults) -> list[tuple[int, ShownExample]]:
    chosen = show_fairly(results.after.examples, SHOWN)
    return [(number, example_from(one, b"")) for number, one in enumerate(chosen)]


def _picture(results: TuneResults, number: int) -> str:
    """The first picture of a shown example as a URI, from the stored thumbnails; empty if it has none."""
    example = show_fairly(results.after.examples, SHOWN)[number]
    paths = [results.folder / "eval" / "after" / "pictures" / f"{digest}.jpg" for digest in example.images]
    return next((data_uri(path.read_bytes()) for path in paths if path.is_file()), "")


def plain_results(results: TuneResults) -> dict[str, Any]:
    """The numbers as JSON has them."""
    found: dict[str, Any] = {
        "model": results.model,
        "metric": results.after.measured_by,
        "metric_chosen_because": results.choice.because,
        "questions": results.after.count,
        "before": [round(value, 2) for value in _triple(results.before.overall)],
        "after": [round(value, 2) for value in _triple(results.after.overall)],
        "improvement": [round(value, 2) for value in _triple(results.improvement)],
        "rows": {"trained": sum(results.data.trained), "held_out": sum(results.data.held_out)},
        "seconds": round(results.seconds, 1),
    }
    return found | ({"sighted": plain_line(results.line)} if results.line else {})


def _triple(one: Estimate) -> tuple[float, float, float]:
    return one.value, one.low, one.high


def card_section(results: TuneResults) -> str:
    """A section of the model card: what was tuned on what, and how it scores."""
    files = "\n".join(
        f"| `{Path(one.config.path).name}` | {one.config.kind} | {trained:,} | {held:,} |"
        for one, trained, held in zip(results.data.prepared, results.data.trained, results.data.held_out, strict=True)
    )
    stage = results.run.stages[-1]
    said = "\n".join(f"- {sentence}" for sentence in [*results.sentences(), CAVEAT])
    return f"""
## Tuning

Tuned from `{results.model}` by `lorgnette tune`: {results.run.steps:,} steps, vision {stage.vision.mode}, connector
{stage.connector.mode}, language {stage.language.mode} (rank {stage.lora.rank}), learning rate {stage.lr:g}.

| data | kind | rows trained on | held out |
|---|---|---:|---:|
{files}

{said}
"""
