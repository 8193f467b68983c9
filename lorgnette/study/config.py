"""Settings of a study: a base run, cells that are declared changes of it, one budget, measures, and claims.

A study is a file `studies/NAME.yaml`. Its claims stand in it before anything runs, and the digest of the file stands in
every row of results.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from lorgnette.errors import SettingsError
from lorgnette.files import replace_text
from lorgnette.run import Run, find_recipe
from lorgnette.settings import Settings, find_shipped, shipped_folder
from lorgnette.untrusted import quoted

BudgetUnit = Literal["steps", "supervised_tokens", "images", "flops"]
Changes = dict[str, Any]
"""Dotted settings of a run -> values: `{stages.2.steps: 300, stages.*.lr: 1e-4}`, where `*` means each stage."""
EVERY_STAGE = "stages.*."
"""Beginning of a change that is made in each stage."""


class StudyScale(Settings):
    """One size at which a study can run: the base of all cells, and how each is measured."""

    base: str
    """A recipe, by name or path."""
    changes: Changes = {}
    """Changes of the base that all cells have in common."""
    seeds: int = pydantic.Field(default=3, ge=1)
    """Seeds 1, 2, ... that each cell is trained with."""
    tasks: tuple[str, ...] = pydantic.Field(default=("builtin",), min_length=1)
    """Benchmarks whose mean is the score, as `lorgnette eval --tasks` takes them; by default the four in the roles of
    the paper's (section 3)."""
    questions: int = pydantic.Field(default=300, ge=1)
    """Questions of each benchmark, the same for all cells; each is asked with its image and with another's."""
    shots: int = pydantic.Field(default=0, ge=0)
    """Solved examples before each question; the paper's ablations have 4."""
    heldout: int = pydantic.Field(default=64, ge=1)
    """Samples of each validation source for the held-out loss."""
    curve_every: int | None = pydantic.Field(default=None, ge=1)
    """Steps between measurements of the score and of the held-out loss during training (Figure 4); None for none."""
    curve_questions: int = pydantic.Field(default=100, ge=1)
    """Questions of each benchmark at each of these measurements."""


class StudyCell(Settings):
    """One design: its changes of the base, and what the paper found for it."""

    name: str
    changes: Changes = {}
    """Settings that differ from the base; none for the base itself."""
    at: dict[str, Changes] = {}
    """Further changes at one scale, by its name: where a size of the paper does not fit a small model."""
    split: bool | None = None
    """Split each image in crops when the cell is measured (section 3.4), or not; None as `images.split` of the run."""
    paper: float | None = None
    """Score that the paper reports."""

    @pydantic.field_validator("name")
    @classmethod
    def _is_plain(cls, name: str) -> str:
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r}: cells are named on the command line; leave out slashes and leading dots")
        return name


class Claim(Settings):
    """A statement about two cells, made before either runs, with the test that decides it.

    `greater` and `less`: the measure of `cell` lies above (below) that of `over` by more than `margin`. `equivalent`:
    the two are less than `margin` apart. Decided if the whole interval at 1 - `level` says so, in either direction.
    """

    cell: str
    over: str
    kind: Literal["greater", "less", "equivalent"] = "greater"
    by: str = "score"
    """The deciding measure: `score`, `gain` (score over the image-shuffled one), `loss`, `loss_gain`, a benchmark, or
    `score_curve` and `loss_curve`, means over the measurements during training."""
    margin: float = pydantic.Field(default=0.0, ge=0)
    """In points of a score, in nats of a loss."""
    finding: str = ""
    """What the paper found about the two cells, in words, for summaries of many studies; no part of the digest."""
    level: float = pydantic.Field(default=0.05, gt=0, lt=0.5)
    """Most often that chance alone may give a verdict, for this claim by itself."""

    @pydantic.model_validator(mode="after")
    def _can_be_decided(self) -> Claim:
        if self.cell == self.over:
            raise ValueError(f"{self.cell!r} is compared with itself; name another cell in `over`")
        if self.kind == "equivalent" and not self.margin:
            raise ValueError("two cells are never equivalent to within 0; give a margin")
        return self

    @property
    def sentence(self) -> str:
        """The claim for people."""
        unit = "nats" if self.by.startswith("loss") else "points"
        if self.kind == "equivalent":
            return f"{self.cell} and {self.over} are within {self.margin:g} {unit} by {self.by}"
        by_more = f", by more than {self.margin:g} {unit}" if self.margin else ""
        return f"{self.cell} has {'more' if self.kind == 'greater' else 'less'} {self.by} than {self.over}{by_more}"


class Study(Settings):
    """A question, the cells that answer it, and the claims that they decide."""

    name: str
    question: str
    source: str = ""
    """Place in the paper: `Table 3`."""
    about: str = ""
    """Comparability with the paper, and what this study cannot say."""
    scales: dict[str, StudyScale] = pydantic.Field(min_length=1)
    budget: BudgetUnit = "steps"
    """What all cells spend alike. With another unit than steps, the steps of each stage are scaled to that of the first
    cell, by the cost of the plan's first packs."""
    cells: tuple[StudyCell, ...] = pydantic.Field(min_length=2)
    claims: tuple[Claim, ...] = ()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [cell.name for cell in self.cells]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two cells are called {sorted(twice)[0]!r}; give each its own name")
        for name in itertools.chain.from_iterable((claim.cell, claim.over) for claim in self.claims):
            if name not in names:
                raise ValueError(f"a claim names the cell {name!r}; there are: {', '.join(names)}")
        for cell in self.cells:
            if strange := set(cell.at) - set(self.scales):
                raise ValueError(f"cell {cell.name!r} has changes at {sorted(strange)[0]!r}, which is no scale here")
        return self

    def digest(self) -> str:
        """Twelve hex digits that name the study, its claims among them; settings that are added later change none."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"claims": {"__all__": {"finding"}}})
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def scale(self, name: str) -> StudyScale:
        """The scale of that name. Raises: SettingsError with the names that there are."""
        if name not in self.scales:
            raise SettingsError(f"study {self.name}: has no scale {name!r}; there are: {', '.join(self.scales)}")
        return self.scales[name]

    def cell(self, name: str) -> StudyCell:
        """The cell of that name. Raises: SettingsError with the names that there are."""
        for cell in self.cells:
            if cell.name == name:
                return cell
        raise SettingsError(
            f"study {self.name}: has no cell {name!r}; there are: {', '.join(c.name for c in self.cells)}"
        )

    def run(self, scale: str, cell: StudyCell | None, seed: int) -> Run:
        """The run of a cell; of the base that all cells change where there is none. Raises: SettingsError."""
        chosen = self.scale(scale)
        path = find_recipe(chosen.base)
        overrides = as_overrides(chosen.changes, stages := len(Run.load(path).stages))
        own = as_overrides(self.changes(scale, cell), stages) if cell else []
        return Run.load(path, [*overrides, *own, f"seed={seed}"])

    def changes(self, scale: str, cell: StudyCell) -> Changes:
        """Everything that a cell changes at a scale."""
        return cell.changes | cell.at.get(scale, {})

    def check(self, scale: str) -> None:
        """Refuse cells that differ in more than they declare, are equal, or spend unequal steps.

        Raises: SettingsError naming the cell and the setting.
        """
        base, seen = self.run(scale, None, 1), dict[str, str]()
        if not base.validation.sources:
            raise SettingsError(
                f"study {self.name}, scale {scale}: there is nothing to compute the held-out loss on; set"
                " validation.sources in the base or in the changes of the scale"
            )
        for cell in self.cells:
            run, where = self.run(scale, cell, 1), f"study {self.name}, cell {cell.name}"
            changed = set(base.diff(run))
            declared = [key.removesuffix(".preset") for key in self.changes(scale, cell)]
            if strange := sorted(key for key in changed if not any(_within(key, name) for name in declared)):
                raise SettingsError(f"{where}: differs from the base in {strange[0]}, which its changes do not name")
            if idle := [name for name in declared if not any(_within(key, name) for key in changed)]:
                raise SettingsError(f"{where}: its change of {idle[0]} changes nothing; leave it out")
            if other := seen.get(measured := f"{run.identity} {cell.split}"):
                raise SettingsError(f"{where}: is the same run as cell {other}; leave one of them out")
            if [stage.steps for stage in run.stages] != [stage.steps for stage in base.stages]:
                raise SettingsError(f"{where}: changes the steps, but every cell has one budget; set `budget` instead")
            seen[measured] = cell.name


def as_overrides(changes: Mapping[str, Any], stages: int) -> list[str]:
    """Changes as overrides of the command line, `stages.*.` written out for each of so many stages."""
    found = []
    for key, value in changes.items():
        rest = key.removeprefix(EVERY_STAGE)
        keys = [key] if rest == key else [f"stages.{number}.{rest}" for number in range(stages)]
        found += [f"{one}={json.dumps(value)}" for one in keys]
    return found


def _within(key: str, declared: str) -> bool:
    """Return whether a dotted key is a declared one or inside it."""
    pattern, parts = declared.split("."), key.split(".")
    return len(parts) >= len(pattern) and all(
        one in ("*", other) for one, other in zip(pattern, parts[: len(pattern)], strict=True)
    )


def find_study(name: str) -> Path:
    """The path of a study given by path or name. Raises: SettingsError with the names that there are."""
    return find_shipped(name, "studies", "study")


def load_study(name: str) -> Study:
    """Read a study by path or name. Raises: SettingsError."""
    return Study.load(find_study(name))


def shipped_studies() -> list[Path]:
    """Paths of the studies that lorgnette carries."""
    return sorted(shipped_folder("studies").glob("*.yaml"))


def begin_study(name: str, source: str) -> Path:
    """Write another study's file, comments and all, as `NAME.yaml` into the working folder.

    Raises: SettingsError if `source` is none or the name cannot be a file's; DiskError if there is such a file already.
    """
    path, text = Path(f"{name}.yaml"), find_study(source).read_text(encoding="utf-8")
    load_study(source)
    if not name.isprintable() or path.name != f"{name}.yaml" or name.startswith("."):
        raise SettingsError(f"{quoted(name)!r} cannot name a study; use letters, digits and dashes")
    replace_text(path, re.sub(r"^name:.*$", f"name: {json.dumps(name)}", text, count=1, flags=re.MULTILINE), _never)
    return path


def _never(content: bytes) -> bool:
    """No file is replaced, not even a study's: it may hold somebody's work."""
    return False
