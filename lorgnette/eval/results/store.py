"""Results of an evaluation, in memory and as a folder from which every number can be derived again.

A results folder holds:

`settings.json`: all that decides the answers: the task and its version, the wording, and the model, `model` for people
and `weights`, a digest of its files, for equality. A folder goes on under equal settings only.
`sessions.jsonl`: a row per process that worked on it: the code's version and commit, torch, the device, when.
`examples.jsonl`: a row per question, appended as answers arrive: see `Example`. `score` is 0 until all is there.
`pictures/`: small copies of what was shown, named by digest.
`refused.jsonl`: rows that could not be asked, and why; absent if there are none.
`summary.json`: the scores, written last.

Where several processes share the work, each writes rows to files of its own; the last one joins them (`rank_files.py`).
Folders of older versions lack `weights`, `questions`, sessions, and of each example `id` and `rendered`.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorgnette import plugins
from lorgnette.data.rejected import RejectedRow
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.metrics import METRICS, Reference, metric_named
from lorgnette.eval.reasoning import cut_thought
from lorgnette.eval.results.bootstrap import Estimate, estimate
from lorgnette.eval.results.rank_files import (
    ROWS_CONFIG,
    Rank,
    StoredRow,
    StrictIndex,
    append,
    damaged,
    join,
    mend,
    read_rejected_rows,
    rejected_lines,
    rows,
    write_rows,
)
from lorgnette.files import DiskError, check_replaceable, explain_disk, new_file, write_json
from lorgnette.settings import typed
from lorgnette.untrusted import read_json


@dataclass(frozen=True, slots=True)
class Example:
    """One question, what was answered, and what should have been."""

    __pydantic_config__ = ROWS_CONFIG

    index: StrictIndex
    """Its place in the task."""
    name: str
    kind: str
    question: str
    answer: str
    """The raw output: nothing is cut off or normalised before it is stored."""
    truth: Reference
    images: tuple[str, ...]
    """Digests of the images that were shown."""
    score: float = 0.0
    """A fraction: 1 is right."""
    prompt: str = ""
    """All that was shown, examples before the question included: an image stands as `[image DIGEST]`."""
    extracted: str | None = None
    """Answer as a judge extracted it; scored in place of the model's text."""
    extracted_by: str = ""
    """Name of the judge."""
    by: str = ""
    """Model that answered, as a server reports it: the model behind a name may change."""
    declined: str = ""
    """Reason for a missing answer: a server declined the prompt, or the model failed on it. Scored as empty."""
    rendered: str = ""
    """The very text that the model read, special tokens spelled out; a run of 64 image tokens reads `<image>×64`."""
    id: str = ""
    """Id of the question in the benchmark and on its server."""

    @property
    def judged(self) -> str:
        """Return the text to score: the answer without its reasoning, or the answer that a judge read out of it."""
        return cut_thought(self.answer if self.extracted is None else self.extracted).answer

    @property
    def unclosed(self) -> bool:
        """Return whether the answer ends within a thought, so that an empty one is scored."""
        return self.extracted is None and cut_thought(self.answer).unclosed

    @classmethod
    def from_row(cls, row: StoredRow) -> Example:
        """Raises: DataError if a value lacks, is not of its type, or is none that examples have."""
        return typed(cls, row, "an example")


@dataclass
class _Settings:
    """Settings of an evaluation that are read again; there are more, which are only compared."""

    task: str
    metric: str
    questions: int = 0
    metric_version: int = 1
    split: str | None = None
    size: int = 0


def _is_finite(value: Any) -> bool:
    """Return whether a parsed value can be written as JSON again: JSON has no infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _groups(kind: str) -> list[str]:
    """`Business/Finance` is counted in `Business` too."""
    parts = kind.split("/")
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def in_kind(kind: str, group: str) -> bool:
    """Return whether a question of `kind` is counted in `group`."""
    return group in _groups(kind)


@dataclass(frozen=True)
class Result:
    """An evaluation: its settings, its scores in percent with 95 % intervals, and every example."""

    settings: dict[str, Any]
    overall: Estimate
    kinds: dict[str, Estimate]
    examples: tuple[Example, ...]
    rejected: Mapping[int, RejectedRow] = field(default_factory=dict)
    """Rows that could not be asked, by their place in the task: not in the score, but named in the summary."""

    @property
    def accuracy(self) -> float:
        """The overall score in percent."""
        return self.overall.value

    @property
    def count(self) -> int:
        return self.overall.count

    @property
    def missing(self) -> int:
        """Questions that are neither answered nor refused yet. Folders of older versions do not tell: 0."""
        there = self.count + len(self.rejected)
        return max(0, int(self.settings.get("questions", there)) - there)

    @property
    def scored(self) -> bool:
        """False where the answers are secret."""
        return bool(self.settings["metric"] != "unscored")

    @property
    def measured_by(self) -> str:
        """The metric and its version."""
        return f"{self.settings['metric']} {self.settings.get('metric_version', 1)}"

    @property
    def unclosed(self) -> tuple[str, ...]:
        """The names of the questions whose answers end within a thought."""
        return tuple(example.name for example in self.examples if example.unclosed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return caveats of the score, in sentences."""
        alone = metric_named(self.settings["metric"]).of_one if self.count == 1 else ""
        return (alone,) if alone else ()

    def summary(self) -> dict[str, Any]:
        """Settings and scores as one JSON object. Where nothing is scored there are counts only."""
        refused = {row.name: row.reason for row in self.rejected.values()}
        declined = {example.name: example.declined for example in self.examples if example.declined}
        found: dict[str, Any] = {"scored": self.scored, "missing": self.missing, "refused": refused}
        found |= {"declined": declined} if declined else {}
        found |= {"unclosed_thoughts": len(self.unclosed)} if self.unclosed else {}
        found |= {"notes": list(self.notes)} if self.notes else {}
        for key, names in (
            ("answered_by", [e.by for e in self.examples]),
            ("judged_by", [e.extracted_by for e in self.examples]),
        ):
            found |= {key: dict(Counter(filter(None, names)))} if any(names) else {}
        if self.scored:
            kinds = {kind: dataclasses.asdict(scores) for kind, scores in self.kinds.items()}
            return {**self.settings, "overall": dataclasses.asdict(self.overall), "kinds": kinds, **found}
        return {**self.settings, "overall": {"count": self.count}, "kinds": {}, **found}


def score(
    settings: dict[str, Any], examples: Iterable[Example], rejected: Mapping[int, RejectedRow] | None = None
) -> Result:
    """Score examples by the metric that the settings name. No model and no sample is needed.

    The result's settings name the metric's version, `metric_version`.
    """
    metric = metric_named(settings["metric"])
    settings = {**settings, "metric_version": metric.version}
    rows = sorted(examples, key=lambda example: example.index)
    counts = metric.counts([row.judged for row in rows], [row.truth for row in rows])
    if rows:
        scores = metric.ratio(counts).tolist()
        rows = [dataclasses.replace(row, score=score) for row, score in zip(rows, scores, strict=True)]

    def estimate_of(members: Sequence[int]) -> Estimate:
        return estimate(counts[members], metric.ratio, [rows[i].images or rows[i].index for i in members])

    kinds = sorted({group for row in rows for group in _groups(row.kind)} - {""})
    by_kind = {kind: estimate_of([i for i, row in enumerate(rows) if in_kind(row.kind, kind)]) for kind in kinds}
    return Result(settings, estimate_of(range(len(rows))), by_kind, tuple(rows), dict(sorted((rejected or {}).items())))


class ResultsFolder:
    """A results folder. What is appended survives a kill; whole files are written beside and renamed.

    rank: which of how many processes appends to it.
    """

    def __init__(self, path: str | Path, rank: Rank | None = None) -> None:
        self.path, self.rank = Path(path), rank or Rank()
        self._session: StoredRow | None = None

    def begin(self, settings: dict[str, Any], session: StoredRow | None = None) -> list[Example]:
        """Start the folder, or take it up again: the examples already answered under the same settings.

        session: what is worth knowing about this process; it is stored once it has something to append.
        Raises: SettingsError if the folder holds results of other settings; DiskError if it holds something else.
        """
        if self._has_settings():
            self._check(settings)
        else:
            with explain_disk(self.path):
                (self.path / "pictures").mkdir(parents=True, exist_ok=True)
            write_json(self.path / "settings.json", settings)
        for kind in ("examples", "sessions"):
            mend(self._own(kind))
        self._session = session
        return self.examples()

    def _has_settings(self) -> bool:
        """Return whether this process or another began the folder. Raises: DiskError if it holds something else."""
        file = self.path / "settings.json"
        if file.exists():
            return True
        try:
            check_replaceable(self.path, (".*", "pictures/"))  # rows are added to files, which must be ours
        except DiskError:
            if not file.exists():  # else another rank began it between the two looks
                raise
        return file.exists()

    def append(self, examples: Iterable[Example], pictures: dict[str, bytes]) -> None:
        """Add a batch of answers, and the pictures that they were shown."""
        if self._session:
            append(self._own("sessions"), [self._session])
            self._session = None
        for digest, content in pictures.items():
            with new_file(self.picture(digest)) as beside:
                beside.write_bytes(content)
        append(self._own("examples"), [dataclasses.asdict(example) for example in examples])

    def reject(self, rejected: Mapping[int, RejectedRow]) -> None:
        """Store what this process could not ask, in place of what it could not ask before."""
        if rejected or self._own("refused").exists():
            write_rows(self._own("refused"), rejected_lines(rejected))

    def finish(self, result: Result) -> None:
        """Store the scores, in every row and as `summary.json`, and join what several processes wrote."""
        join(self.path, "examples", [dataclasses.asdict(example) for example in result.examples])
        if result.rejected or rows(self.path, "refused"):
            join(self.path, "refused", rejected_lines(result.rejected))
        sessions = self.sessions()
        if sessions:
            join(self.path, "sessions", sessions)
        write_json(self.path / "summary.json", result.summary() | {"made_by": _distinct(sessions)})

    def result(self) -> Result:
        """The stored examples, scored. Raises: DataError; SettingsError for a metric that only the folder names."""
        with plugins.reading(str(self.path)):
            return score(self.settings(), self.examples(), self.rejected())

    def settings(self) -> dict[str, Any]:
        """Raises: DataError if there are none."""
        path = self.path / "settings.json"
        try:
            settings = read_json(path)
        except DataError as error:
            raise DataError(f"{error}; give a folder that an evaluation wrote") from None
        if not isinstance(settings, dict):
            raise DataError(f"{path}: is no JSON object; give a folder that an evaluation wrote")
        typed(_Settings, settings, str(path))
        if "metric" not in settings:
            raise DataError(f"{path}: names no metric; give a folder that an evaluation wrote")
        if not _is_finite(settings):
            raise DataError(f"{path}: holds a number that is none; give a folder that an evaluation wrote")
        return settings

    def examples(self) -> list[Example]:
        """Every whole row, once. Raises: DataError for a damaged row before the last."""
        found: dict[int, Example] = {}
        for where, row in rows(self.path, "examples"):
            try:
                example = Example.from_row(row)
            except DataError:
                raise damaged(where) from None
            found.setdefault(example.index, example)
        return list(found.values())

    def rejected(self) -> dict[int, RejectedRow]:
        """Rows that could not be asked and were not answered since, by their place in the task."""
        found = read_rejected_rows(self.path)
        answered = {example.index for example in self.examples()} if found else set()
        return {index: row for index, row in found.items() if index not in answered}

    def sessions(self) -> list[StoredRow]:
        """Facts of each process that worked here, in the order in which they began."""
        stored = rows(self.path, "sessions") + rows(self.path, "sessions")  # the former as older versions call them
        every = [row for _, row in stored if _is_finite(row)]
        found = {json.dumps(row, sort_keys=True): row for row in every}
        return sorted(found.values(), key=lambda row: str(row.get("began", "")))

    def lacks(self) -> str:
        """State what results of an older version lack; empty if nothing is lacking."""
        if "questions" in self.settings():
            return ""
        return (
            f"{self.path}: an older lorgnette wrote it, and did not store which code and weights gave the answers, the"
            " text as the model read it, or how many questions were chosen"
        )

    def outdated(self) -> str:
        """In which way the stored scores are not those that today's metric gives, as a sentence; empty if they are."""
        path = self.path / "summary.json"
        if not path.is_file():
            return ""
        try:
            summary = read_json(path)
        except DataError as error:
            return f"{error}; rescore makes it again"
        if not isinstance(summary, dict) or not isinstance(summary.get("metric"), str):
            return f"{path}: names no metric; rescore makes it again"
        name, version = summary.get("metric"), summary.get("metric_version", 1)
        if name not in METRICS or version == METRICS[name].version:
            return ""
        now = METRICS[name].version
        return f"{self.path}: its stored scores are of version {version} of {name}; today's is {now}, and scores differ"

    def picture(self, digest: str) -> Path:
        """Path of the thumbnail of an image."""
        return self.path / "pictures" / f"{digest}.jpg"

    def _own(self, kind: str) -> Path:
        return self.rank.file(self.path, kind)

    def _check(self, settings: dict[str, Any]) -> None:
        """Raises: SettingsError if those in the folder are others."""
        stored = self.settings()
        for key in sorted(stored.keys() | settings.keys()):
            old, new = stored.get(key), settings.get(key)
            if old == new:
                continue
            change = f"{key} was {old!r} and is now {new!r}"
            if key == "weights":
                change = f"the files of {settings.get('model')} are not those that gave the stored answers"
            elif key not in stored:
                change = f"an older lorgnette, which stored no {key}, wrote it"
            raise SettingsError(f"{self.path}: holds results of other settings ({change}); use another folder")


def folders_in(path: str | Path) -> dict[str, Path]:
    """The results folders of an evaluation by name: `path` itself, or one for each task in it.

    Raises: DataError if there are none.
    """
    path = Path(path)
    if (path / "settings.json").is_file():
        return {str(ResultsFolder(path).settings().get("task", path.name)): path}
    found = {file.parent.name: file.parent for file in sorted(path.glob("*/settings.json"))}
    if not found:
        raise DataError(f"{path}: holds no results; give a folder that an evaluation wrote")
    return found


def _distinct(sessions: Iterable[StoredRow]) -> list[StoredRow]:
    """Distinct code versions and devices of the sessions."""
    kept = [{key: value for key, value in row.items() if key not in ("began", "rank")} for row in sessions]
    return list({json.dumps(row, sort_keys=True): row for row in kept}.values())
