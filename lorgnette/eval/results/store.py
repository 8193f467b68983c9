"""Results of an evaluation, in memory and as a folder from which every score can be recomputed.

A results folder holds:

`settings.json`: all that decides the answers: the task and its version, the prompt templates, and the model, by name
(`model`) and by a digest of its files (`weights`). An evaluation resumes only with equal settings.
`sessions.jsonl`: a row per process that worked on it: the code's version and commit, torch, the device, when.
`examples.jsonl`: a row per question, appended as answers arrive: see `Example`. `score` is 0 until all are answered.
`pictures/`: thumbnails of the images that were shown, named by digest.
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
    """One question, the model's answer, and the reference."""

    __pydantic_config__ = ROWS_CONFIG

    index: StrictIndex
    """Position of the question in the task."""
    name: str
    kind: str
    question: str
    answer: str
    """Raw output of the model, neither cut nor normalised."""
    truth: Reference
    images: tuple[str, ...]
    """Digests of the images that were shown."""
    score: float = 0.0
    """Score from 0 to 1."""
    prompt: str = ""
    """The whole prompt, few-shot examples included; an image is written `[image DIGEST]`."""
    extracted: str | None = None
    """Answer as a judge extracted it; scored in place of the model's text."""
    extracted_by: str = ""
    """Name of the judge."""
    by: str = ""
    """Model that answered, as a server reports it: the model behind a name may change."""
    declined: str = ""
    """Reason for a missing answer: a server declined the prompt, or the model failed on it. Scored as empty."""
    rendered: str = ""
    """The rendered prompt with its special tokens; 64 consecutive image tokens are written `<image>×64`."""
    id: str = ""
    """Id of the question in the benchmark and on its server."""

    @property
    def judged(self) -> str:
        """Return the text to score: the answer without its reasoning, or the answer that a judge read out of it."""
        return cut_thought(self.answer if self.extracted is None else self.extracted).answer

    @property
    def unclosed(self) -> bool:
        """Return whether the answer ends within its reasoning, and is scored as empty."""
        return self.extracted is None and cut_thought(self.answer).unclosed

    @classmethod
    def from_row(cls, row: StoredRow) -> Example:
        """Parse a stored row. Raises: DataError if a key is missing, unknown or of another type."""
        return typed(cls, row, "an example")


@dataclass
class _Settings:
    """The settings of an evaluation that are used after it; all others are only compared."""

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
    """Groups that a kind is counted in: `Business/Finance` counts for `Business` too."""
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
    """Rows that could not be asked, by position in the task: not scored, but named in the summary."""

    @property
    def accuracy(self) -> float:
        """The overall score in percent."""
        return self.overall.value

    @property
    def count(self) -> int:
        return self.overall.count

    @property
    def missing(self) -> int:
        """Number of questions neither answered nor refused; 0 for folders of older versions, which do not say."""
        there = self.count + len(self.rejected)
        return max(0, int(self.settings.get("questions", there)) - there)

    @property
    def scored(self) -> bool:
        """False where the reference answers are not public."""
        return bool(self.settings["metric"] != "unscored")

    @property
    def measured_by(self) -> str:
        """The metric and its version."""
        return f"{self.settings['metric']} {self.settings.get('metric_version', 1)}"

    @property
    def unclosed(self) -> tuple[str, ...]:
        """Names of the questions whose answers end within their reasoning."""
        return tuple(example.name for example in self.examples if example.unclosed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return caveats of the score, in sentences."""
        alone = metric_named(self.settings["metric"]).of_one if self.count == 1 else ""
        return (alone,) if alone else ()

    def summary(self) -> dict[str, Any]:
        """Settings and scores as one JSON object; only counts where there is no score."""
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
    """Score stored examples with the metric of the settings; neither model nor data are opened.

    The settings of the result have the metric's version, `metric_version`.
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
    """A results folder. Appended rows survive a kill; whole files are written to a temporary name and renamed.

    rank: number of this process among those that write to the folder.
    """

    def __init__(self, path: str | Path, rank: Rank | None = None) -> None:
        self.path, self.rank = Path(path), rank or Rank()
        self._session: StoredRow | None = None

    def begin(self, settings: dict[str, Any], session: StoredRow | None = None) -> list[Example]:
        """Create the folder, or resume it. Returns the examples that are answered already.

        session: facts about this process, stored when its first answers are appended.
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
        """Append a batch of answers, and thumbnails of their images."""
        if self._session:
            append(self._own("sessions"), [self._session])
            self._session = None
        for digest, content in pictures.items():
            with new_file(self.picture(digest)) as beside:
                beside.write_bytes(content)
        append(self._own("examples"), [dataclasses.asdict(example) for example in examples])

    def reject(self, rejected: Mapping[int, RejectedRow]) -> None:
        """Store the rows that this process could not ask, replacing its earlier list."""
        if rejected or self._own("refused").exists():
            write_rows(self._own("refused"), rejected_lines(rejected))

    def finish(self, result: Result) -> None:
        """Store the scores, in each row and in `summary.json`, and join the files of several processes."""
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
        """Read and check `settings.json`. Raises: DataError if it is missing or damaged."""
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
            raise DataError(f"{path}: holds NaN or infinity; give a folder that an evaluation wrote")
        return settings

    def examples(self) -> list[Example]:
        """Complete rows, without duplicates. Raises: DataError for a damaged row before the last."""
        found: dict[int, Example] = {}
        for where, row in rows(self.path, "examples"):
            try:
                example = Example.from_row(row)
            except DataError:
                raise damaged(where) from None
            found.setdefault(example.index, example)
        return list(found.values())

    def rejected(self) -> dict[int, RejectedRow]:
        """Rows that could not be asked and have not been answered since, by position in the task."""
        found = read_rejected_rows(self.path)
        answered = {example.index for example in self.examples()} if found else set()
        return {index: row for index, row in found.items() if index not in answered}

    def sessions(self) -> list[StoredRow]:
        """Facts about each process that wrote to the folder, in order of their start."""
        stored = rows(self.path, "sittings") + rows(self.path, "sessions")  # the former as older versions call them
        every = [row for _, row in stored if _is_finite(row)]
        found = {json.dumps(row, sort_keys=True): row for row in every}
        return sorted(found.values(), key=lambda row: str(row.get("began", "")))

    def lacks(self) -> str:
        """State what results of an older version lack; empty if nothing is lacking."""
        if "questions" in self.settings():
            return ""
        return (
            f"{self.path}: written by an older lorgnette, which did not store the code and weights behind the answers,"
            " the rendered prompts, or the number of questions"
        )

    def outdated(self) -> str:
        """State in a sentence why stored scores differ from those of today's metric; empty if they do not."""
        path = self.path / "summary.json"
        if not path.is_file():
            return ""
        try:
            summary = read_json(path)
        except DataError as error:
            return f"{error}; rescore writes it again"
        if not isinstance(summary, dict) or not isinstance(summary.get("metric"), str):
            return f"{path}: names no metric; rescore writes it again"
        name, version = summary.get("metric"), summary.get("metric_version", 1)
        if name not in METRICS or version == METRICS[name].version:
            return ""
        now = METRICS[name].version
        return f"{self.path}: scored with version {version} of {name}; version {now} gives other scores (eval rescore)"

    def picture(self, digest: str) -> Path:
        """Path of the thumbnail of an image."""
        return self.path / "pictures" / f"{digest}.jpg"

    def _own(self, kind: str) -> Path:
        return self.rank.file(self.path, kind)

    def _check(self, settings: dict[str, Any]) -> None:
        """Compare settings with the stored ones. Raises: SettingsError naming the first that differs."""
        stored = self.settings()
        for key in sorted(stored.keys() | settings.keys()):
            old, new = stored.get(key), settings.get(key)
            if old == new:
                continue
            change = f"{key} was {old!r} and is now {new!r}"
            if key == "weights":
                change = f"the files of {settings.get('model')} have changed since the stored answers"
            elif key not in stored:
                change = f"written by an older lorgnette, which did not store {key}"
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
