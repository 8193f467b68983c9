"""Rows of results: one for each cell and seed, in `rows/STUDY.jsonl` of a folder, and those that lorgnette carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorgnette.errors import SettingsError
from lorgnette.eval.results.rank_files import StoredRow, append, mend, rows
from lorgnette.files import locked_file
from lorgnette.run import Run
from lorgnette.settings import shipped_folder, typed
from lorgnette.study.config import Study


@dataclass(frozen=True)
class TaskScores:
    """Scores of each question of one benchmark, as fractions, with its image and with another's (`blind`)."""

    scores: list[float]
    blind: list[float]
    pictures: list[int]
    """Number of the picture that each question is about: questions about one picture are not independent."""
    questions: str
    """Digest of the questions, the metric and its version: rows are paired where it is equal."""


@dataclass(frozen=True)
class StudyRow:
    """Everything measured of one cell at one seed."""

    key: str
    """Identity of the run and digest of the measuring: equal keys are the same measurement, in whatever study."""
    study: str
    study_digest: str
    """Digest of the study's settings when this was measured, its claims among them."""
    scale: str
    cell: str
    seed: int
    settings: dict[str, Any]
    """Settings of the run that decide what is learned, so that later versions of them know the run again."""
    conditions: dict[str, str]
    """Device, threads, versions, commit and command."""
    ended: str
    """Time in UTC."""
    cost: dict[str, float]
    """Steps, images, tokens, supervised tokens, FLOPs and seconds of training; trained and all parameters; peak GiB."""
    failed: str = ""
    """Reason why training ended before its last step (divergence); nothing is measured then."""
    tasks: dict[str, TaskScores] = field(default_factory=dict)
    loss: dict[str, float] = field(default_factory=dict)
    """Held-out loss of each validation source, in nats a supervised token."""
    loss_shuffled: dict[str, float] = field(default_factory=dict)
    """The same with the images of other samples."""
    curve: list[list[float]] = field(default_factory=list)
    """(steps, images, tokens, FLOPs, loss) so far, the loss a mean since the point before."""
    score_curve: list[list[float]] = field(default_factory=list)
    """(steps, images, tokens, FLOPs, score, held-out loss) at measurements during training; see `StudyScale`."""

    @property
    def code(self) -> str:
        """The version of the code that made it."""
        return f"{self.conditions.get('lorgnette', '?')} {self.conditions.get('commit', 'unknown')}"


class RowStore:
    """Rows of a folder of studies, and below them those that lorgnette carries (`studies/results`)."""

    def __init__(self, folder: Path, shipped: bool = True) -> None:
        self.folder = folder
        self._places = [*([shipped_folder("studies") / "results"] if shipped else []), folder / "rows"]

    def read(self, wanted: Collection[str] = ()) -> dict[str, StudyRow]:
        """All rows by key; the folder's own go before shipped ones. Raises: DataError for a damaged row.

        wanted: keys that are looked for. A row that has another is read as a run of today's settings: where they have
            grown since it was measured, its key has changed with them.
        """
        found: dict[str, StudyRow] = {}
        for place in self._places:
            for file in sorted(place.glob("*.jsonl")):
                for where, values in rows(place, file.stem):
                    row = typed(StudyRow, values, where)
                    found[_key_today(row, wanted)] = row
        return found

    def named(self, cells: Mapping[str, str]) -> list[StudyRow]:
        """Rows of some keys under the name that each cell has in the study that asks. cells: key -> name."""
        return [dataclasses.replace(row, cell=cells[key]) for key, row in self.read(cells).items() if key in cells]

    def add(self, row: StudyRow) -> None:
        """Append a row, also while other processes do. It survives a kill once this returns. Raises: DiskError."""
        file = self._places[-1] / f"{row.study}.jsonl"
        with locked_file(file.with_name(".rows.lock")):
            mend(file)
            append(file, [_plain(row)])


def _key_today(row: StudyRow, wanted: Collection[str]) -> str:
    """Key of a row; where it is none of those wanted, the one that its settings give today."""
    if not wanted or row.key in wanted:
        return row.key
    try:
        return f"{Run.parse(row.settings, stored=True).identity}-{row.key.rpartition('-')[2]}"
    except SettingsError:  # settings that no longer are
        return row.key


def _plain(row: StudyRow) -> StoredRow:
    return dataclasses.asdict(row)


def provenance(study: Study, found: Sequence[StudyRow]) -> list[str]:
    """Sentences about rows that should not be mixed without being marked; none where all are alike."""
    said = []
    codes = _counted(row.code for row in found)
    if len(codes) > 1:
        said.append(f"rows of {len(codes)} versions of the code: {', '.join(codes)}")
    if dirty := sorted({row.code for row in found if row.code.endswith(("+", "unknown"))}):
        said.append(f"code that no commit names: {', '.join(dirty)}")
    digest = study.digest()
    if old := sum(row.study == study.name and row.study_digest != digest for row in found):
        said.append(f"{old} rows are older than the study file as it is now ({digest}), its claims perhaps too")
    if others := _counted(f"{row.study} {row.study_digest}" for row in found if row.study != study.name):
        said.append(f"rows shared with other studies: {', '.join(others)}")
    devices = _counted(row.conditions.get("device", "unknown") for row in found)
    if len(devices) > 1:
        said.append(f"rows of {len(devices)} devices: {', '.join(devices)}; their seconds are not comparable")
    return said


def _counted(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
