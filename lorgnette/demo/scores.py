"""Results of the demo: the numbers, their JSON form, and sentences derived from them alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lorgnette.eval.metrics.exact import normalise
from lorgnette.eval.results.compare import compare
from lorgnette.eval.results.sighted import Asked, Line, ShownExample, constant_score, line_of, plain_line
from lorgnette.eval.results.store import Result
from lorgnette.report.training_curve import CurvePoint


@dataclass(frozen=True)
class DemoResults:
    """Everything that the report tells. `before`, `after` and `blind` answer the same unseen questions."""

    before: Result
    after: Result
    blind: Result
    curve: Sequence[CurvePoint]
    examples: Sequence[ShownExample]
    seconds: float
    """Of the whole job, from the first line to the report."""
    peak_gib: float | None
    """Largest resident memory of the job; None where the system does not say."""
    benchmarks: Mapping[str, Asked] = field(default_factory=dict)
    """The built-in benchmarks by name. They ask much that the demo does not train on."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Parameters of each part of the model."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Conditions of the measurement: device, threads, torch version, commit, command."""
    settings: str = ""
    """The run's settings as YAML."""
    chat: str = ""
    """The command that opens a chat with the model."""

    @cached_property
    def lines(self) -> list[Line]:
        """A line for each kind of question, the best understood first; the line of all questions comes last."""
        sighted = compare(self.blind, self.after)
        constants = {
            kind: constant_score(e for e in self.after.examples if e.kind == kind) for kind in self.after.kinds
        }
        found = [
            Line(
                kind,
                before=self.before.kinds[kind],
                after=scores,
                blind=self.blind.kinds[kind],
                gain=sighted.kinds[kind],
                constant=constants[kind],
            )
            for kind, scores in self.after.kinds.items()
        ]
        found.sort(key=lambda line: -line.gain.value)
        constant = sum(line.constant * line.after.count for line in found) / max(1, self.after.count)
        all_kinds = (self.before.overall, self.after.overall, self.blind.overall, sighted.overall)
        return [*found, Line("all questions", *all_kinds, constant=constant)]

    @cached_property
    def benchmark_lines(self) -> list[Line]:
        """A line for each built-in benchmark, in the benchmark's own metric."""
        return [line_of(name, asked) for name, asked in self.benchmarks.items()]


def verdicts(results: DemoResults) -> list[str]:
    """Verdicts on what was learned, in sentences made from the numbers."""
    *kinds, overall = results.lines
    verb = "sees" if overall.gain.low > 0 else "does not see yet"
    sentences = [
        f"The model {verb}: with the picture it answers {overall.after.value:.1f}% of {overall.after.count:,} unseen "
        f"questions correctly, with another picture {overall.blind.value:.1f}%, and before training "
        f"{overall.before.value:.1f}%."
    ]
    for verdict, words in (("learned", "Learned"), ("a little", "Learned a little"), ("not learned", "Not learned")):
        told = [_tell(line) for line in kinds if line.verdict == verdict]
        if told:
            sentences.append(f"{words}: {'; '.join(told)}.")
    sentences += [
        f"On {line.kind}: {line.after.value:.1f}% of {line.after.count:,} questions with the picture, "
        f"{line.blind.value:.1f}% with another ({line.gain.value:+.1f} points)."
        for line in results.benchmark_lines
        if line.verdict == "learned"
    ]
    return sentences


def _tell(line: Line) -> str:
    told = f"{line.kind} ({line.after.value:.1f}% against {line.blind.value:.1f}% blind, {line.gain.value:+.1f} points)"
    if line.verdict == "not learned":
        return f"{told}, not clearly better than blind"
    if line.after.value <= line.constant:
        return f"{told}, though always saying the commonest answer would give {line.constant:.1f}%"
    return told


def mistakes(result: Result, most: int = 3) -> dict[str, list[tuple[str, str, int]]]:
    """For each kind of question the commonest confusions: (truth, answer, times)."""
    wrong: dict[str, Counter[tuple[str, str]]] = {}
    for example in result.examples:
        if example.score < 1 and example.truth.answers:
            pair = (example.truth.answers[0], normalise(example.judged)[:40] or "(nothing)")
            wrong.setdefault(example.kind, Counter())[pair] += 1
    ranked = {kind: counter.most_common(most) for kind, counter in sorted(wrong.items())}
    return {kind: [(truth, answer, times) for (truth, answer), times in pairs] for kind, pairs in ranked.items()}


def results_json(results: DemoResults) -> dict[str, Any]:
    """The report's numbers as plain values; accuracies in percent."""
    *kinds, overall = results.lines
    return {
        **plain_line(overall),
        "kinds": {line.kind: plain_line(line) for line in kinds},
        "benchmarks": {line.kind: plain_line(line) for line in results.benchmark_lines},
        "metrics": {name: asked.after.measured_by for name, asked in results.benchmarks.items()},
        "questions": results.after.count,
        "seconds": round(results.seconds, 1),
        "peak_gib": results.peak_gib and round(results.peak_gib, 2),
        "parameters": dict(results.parameters),
        "conditions": dict(results.conditions),
    }
