"""What an evaluation found, in memory and as a folder from which every number can be derived again.

A results folder holds `settings.json` (what was asked, of what), `examples.jsonl` (one row per example, appended as
answers arrive), `pictures/` (small copies, named by digest), `refused.jsonl` (rows that could not be asked, and why)
and `summary.json` (written last).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.bootstrap import Estimate, estimate
from lorgnette.eval.metrics import Truth, metric_named
from lorgnette.files import explain_disk, write_json, write_text


@dataclass(frozen=True, slots=True)
class Example:
    """One question, what was answered, and what should have been."""

    index: int
    """Its place in the task."""
    name: str
    kind: str
    question: str
    answer: str
    """The raw output: nothing is cut off or normalised before it is stored."""
    truth: Truth
    images: tuple[str, ...]
    """Digests of the images that were shown."""
    score: float = 0.0
    """A fraction: 1 is right."""
    prompt: str = ""
    """All that was shown, examples before the question included: an image stands as `[image DIGEST]`."""
    extracted: str | None = None
    """What a judge read out of the answer. It is scored in place of the answer."""

    @property
    def judged(self) -> str:
        """What is scored."""
        return self.answer if self.extracted is None else self.extracted

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Example:
        truth: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in row["truth"].items()
        }
        return cls(**{**row, "truth": Truth(**truth), "images": tuple(row["images"])})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row of a benchmark that could not be asked. It is not in the score, and the summary names it."""

    index: int
    name: str
    reason: str


def _groups(kind: str) -> list[str]:
    """`Business/Finance` is counted in `Business` too."""
    parts = kind.split("/")
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def in_kind(kind: str, group: str) -> bool:
    """Whether a question of `kind` is counted in `group`."""
    return group in _groups(kind)


@dataclass(frozen=True)
class Result:
    """An evaluation: its settings, its scores in percent with 95 % intervals, and every example."""

    settings: dict[str, Any]
    overall: Estimate
    kinds: dict[str, Estimate]
    examples: tuple[Example, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def accuracy(self) -> float:
        """The overall score in percent."""
        return self.overall.value

    @property
    def count(self) -> int:
        return self.overall.count

    def summary(self) -> dict[str, Any]:
        kinds = {kind: dataclasses.asdict(scores) for kind, scores in self.kinds.items()}
        refused = {refusal.name: refusal.reason for refusal in self.refused}
        return {**self.settings, "overall": dataclasses.asdict(self.overall), "kinds": kinds, "refused": refused}


def judge(settings: dict[str, Any], examples: Iterable[Example], refused: Iterable[Refusal] = ()) -> Result:
    """Score examples by the metric that the settings name. No model and no sample is needed."""
    metric = metric_named(settings["metric"])
    rows = sorted(examples, key=lambda example: example.index)
    counts = metric.counts([row.judged for row in rows], [row.truth for row in rows])
    if rows:
        scores = metric.ratio(counts).tolist()
        rows = [dataclasses.replace(row, score=score) for row, score in zip(rows, scores, strict=True)]

    def estimate_of(members: Sequence[int]) -> Estimate:
        return estimate(counts[members], metric.ratio, [rows[i].images or rows[i].index for i in members])

    kinds = sorted({group for row in rows for group in _groups(row.kind)} - {""})
    by_kind = {kind: estimate_of([i for i, row in enumerate(rows) if in_kind(row.kind, kind)]) for kind in kinds}
    named = tuple(sorted(refused, key=lambda refusal: refusal.index))
    return Result(settings, estimate_of(range(len(rows))), by_kind, tuple(rows), named)


class ResultsFolder:
    """A results folder. What is appended survives a kill; whole files are written beside and renamed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def begin(self, settings: dict[str, Any]) -> list[Example]:
        """Start the folder, or take it up again: the examples already answered under the same settings.

        Raises: SettingsError if the folder holds results of other settings.
        """
        if (self.path / "settings.json").exists():
            stored = self.settings()
            for key in sorted(stored.keys() | settings.keys()):
                if stored.get(key) != settings.get(key):
                    change = f"{key} was {stored.get(key)!r} and is now {settings.get(key)!r}"
                    raise SettingsError(f"{self.path}: holds results of other settings ({change}); use another folder")
            examples = self.examples()
            self.write_examples(examples)  # drops a line that a kill cut short
            return examples
        with explain_disk(self.path):
            (self.path / "pictures").mkdir(parents=True, exist_ok=True)
        self.write_examples(())
        write_json(self.path / "settings.json", settings)
        return []

    def append(self, examples: Iterable[Example], pictures: dict[str, bytes]) -> None:
        """Add a batch of answers, and the pictures that they were shown."""
        with explain_disk(self.path):
            for digest, content in pictures.items():
                self.picture(digest).write_bytes(content)
            with (self.path / "examples.jsonl").open("a", encoding="utf-8") as file:
                file.write(_lines(examples))
                file.flush()
                os.fsync(file.fileno())

    def finish(self, result: Result) -> None:
        """Store the scores: in every row, and as `summary.json`."""
        self.write_examples(result.examples)
        if result.refused or (self.path / "refused.jsonl").exists():
            write_text(self.path / "refused.jsonl", _lines(result.refused))
        write_json(self.path / "summary.json", result.summary())

    def result(self) -> Result:
        """The stored examples, scored."""
        return judge(self.settings(), self.examples(), self.refused())

    def settings(self) -> dict[str, Any]:
        """Raises: DataError if there are none."""
        path = self.path / "settings.json"
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); give a folder that an evaluation wrote") from None
        return dict(settings)

    def examples(self) -> list[Example]:
        """Every whole row. Raises: DataError for a damaged row before the last."""
        path, examples = self.path / "examples.jsonl", []
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                examples += [Example.from_row(json.loads(line))] if line else []
            except (ValueError, KeyError, TypeError):
                if number < len(lines):
                    raise DataError(f"{path}, line {number}: damaged; delete it and run again") from None
        return examples

    def refused(self) -> list[Refusal]:
        """Rows that could not be asked."""
        path = self.path / "refused.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        return [Refusal(**json.loads(line)) for line in lines if line]

    def picture(self, digest: str) -> Path:
        return self.path / "pictures" / f"{digest}.jpg"

    def write_examples(self, examples: Iterable[Example]) -> None:
        write_text(self.path / "examples.jsonl", _lines(examples))


def _lines(rows: Iterable[Example | Refusal]) -> str:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
