"""Questions asked before training, after it, and after it with other samples' pictures: what looking is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lorgnette.eval.metrics import metric_named
from lorgnette.eval.metrics.exact import normalise
from lorgnette.eval.results.bootstrap import Estimate
from lorgnette.eval.results.compare import compare
from lorgnette.eval.results.store import Example, Result
from lorgnette.sample import ImageSource

LEARNED = 10.0
"""Points over blind from which we say that a kind of question was learned."""


@dataclass(frozen=True, slots=True)
class ShownExample:
    """An unseen picture, what was asked about it, what the model said, and what is true."""

    picture: ImageSource
    question: str
    answer: str
    truth: str
    correct: bool
    kind: str


class Asked(NamedTuple):
    """One benchmark, asked three times: before training, after it, and after it with other samples' pictures."""

    before: Result
    after: Result
    blind: Result


@dataclass(frozen=True)
class Line:
    """One kind of question (or all of them), asked before and after training and blind. All figures are percent."""

    kind: str
    before: Estimate
    after: Estimate
    blind: Estimate
    gain: Estimate
    """After minus blind on the same questions, with its paired interval: what looking is worth."""
    constant: float
    """Score of always giving the most frequent true answer: the statistics of answers, without the picture."""
    higher_is_better: bool = True

    @property
    def verdict(self) -> str:
        """`learned`, `a little` or `not learned`, from the gain and its interval."""
        low, value = (self.gain.low, self.gain.value) if self.higher_is_better else (-self.gain.high, -self.gain.value)
        if low <= 0:
            return "not learned"
        return "learned" if value >= LEARNED else "a little"


def line_of(kind: str, asked: Asked) -> Line:
    """The line of all questions of a benchmark, in its own metric."""
    overall = compare(asked.blind, asked.after).overall
    scores = (asked.before.overall, asked.after.overall, asked.blind.overall)
    higher = metric_named(asked.after.settings["metric"]).higher_is_better
    return Line(kind, *scores, overall, constant_score(asked.after.examples), higher)


def plain_line(line: Line) -> dict[str, Any]:
    """The figures of a line as JSON has them, in percent with two decimals."""
    estimates = {"before": line.before, "after": line.after, "blind": line.blind, "gain": line.gain}
    plain: dict[str, Any] = {name: round(scores.value, 2) for name, scores in estimates.items()}
    plain["intervals"] = {name: [round(s.low, 2), round(s.high, 2)] for name, s in estimates.items()}
    return {**plain, "constant": round(line.constant, 2), "count": line.after.count, "verdict": line.verdict}


def constant_score(examples: Iterable[Example]) -> float:
    """Percent of the questions whose true answer is the commonest one."""
    truths = Counter(normalise(example.truth.answers[0]) for example in examples if example.truth.answers)
    return 100 * max(truths.values(), default=0) / max(1, truths.total())


def example_from(example: Example, picture: ImageSource) -> ShownExample:
    """A stored example with its picture, ready to be shown."""
    question = example.question.replace("[image]", "").strip()
    truth = " or ".join(dict.fromkeys(example.truth.answers))
    return ShownExample(picture, question, example.answer.strip(), truth, example.score >= 1, example.kind)


def show_fairly(examples: Sequence[Example], many: int = 20) -> list[Example]:
    """Examples to show: kinds in turn, spread evenly over the task, chosen without a look at whether they are right."""
    by_kind: dict[str, list[Example]] = {}
    for example in examples:
        by_kind.setdefault(example.kind, []).append(example)
    each = -(-many // max(1, len(by_kind)))
    spread = [[rows[len(rows) * i // each] for i in range(min(each, len(rows)))] for rows in by_kind.values()]
    in_turn = [rows[i] for i in range(each) for rows in spread if i < len(rows)]
    return in_turn[:many]
