"""Typed, frozen settings that round-trip through YAML, refuse typos, can be overridden, hashed and compared.

Every group of settings in lorgnette derives from `Settings`; `lorgnette.run.Run` is the tree that holds them all.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml

from lorgnette.errors import SettingsError

OURS = "Value error, "
"""What pydantic puts before the message of a validator."""


class Settings(pydantic.BaseModel):
    """A frozen group of settings. Unknown keys are refused with the nearest valid name."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "settings") -> Self:
        """Build from plain values (as read from YAML). `where` names their origin in errors.

        Raises: SettingsError naming every wrong key, with the nearest valid one for an unknown key.
        """
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            problems = [_explain(cls, problem) for problem in error.errors()]
            raise SettingsError(f"{where}: " + "; ".join(problems)) from None

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> Self:
        """Read a YAML file and apply dotted overrides such as `stages.0.lr=1e-4`."""
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise SettingsError(f"{path}: no such file; give the path of a YAML file of settings") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{path}: cannot be read as YAML: {error}") from None
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: holds a {type(values).__name__}; expected `key: value` lines")
        for override in overrides:
            apply_override(values, override)
        return cls.parse(values, where=str(path))

    def override(self, *overrides: str) -> Self:
        """A copy with dotted overrides applied: `run.override("stages.0.lr=1e-4")`."""
        values = self.plain()
        for text in overrides:
            apply_override(values, text)
        return type(self).parse(values, where="override")

    def plain(self) -> dict[str, Any]:
        """The settings as nested dicts and lists of plain values."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)

    def digest(self) -> str:
        """Twelve hex digits that name these settings: equal settings, equal digest."""
        text = json.dumps(self.plain(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def diff(self, other: Settings) -> dict[str, tuple[Any, Any]]:
        """Every dotted key on which the two differ, with both values (None where a key is absent)."""
        ours, theirs = flatten(self.plain()), flatten(other.plain())
        keys = sorted(ours.keys() | theirs.keys())
        return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict of dotted keys: `{"a": [{"b": 1}]}` -> `{"a.0.b": 1}`."""
    if isinstance(values, dict):
        items: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(values, list):
        items = enumerate(values)
    else:
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat or {prefix: values}


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key in nested plain values, in place. The value is read as YAML, with `1e-4` a number."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"override {override!r}: write it as key=value, for example stages.0.lr=1e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"override {override!r}: the value cannot be read: {error}") from None
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 (no dot) as a string
        try:
            value = float(value)
        except ValueError:
            pass
    *parents, last = key.split(".")
    here: Any = values
    for part in parents:
        here = _descend(here, part, override, create=True)
    if isinstance(here, list):
        _descend(here, last, override, create=False)
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise SettingsError(f"override {override!r}: there is nothing to set inside a {type(here).__name__}")


def _descend(here: Any, part: str, override: str, create: bool) -> Any:
    if isinstance(here, list):
        if not part.isdigit() or int(part) >= len(here):
            raise SettingsError(f"override {override!r}: {part!r} is not an index below {len(here)}")
        return here[int(part)]
    if isinstance(here, dict):
        if create and here.get(part) is None:
            here[part] = {}
        return here[part]
    raise SettingsError(f"override {override!r}: {part!r} has no settings inside")


def _explain(root: type[Settings], problem: Any) -> str:
    """One pydantic problem as a phrase for people."""
    location = list(problem["loc"])
    key = ".".join(str(part) for part in location)
    if problem["type"] == "value_error":  # a rule of ours, which says itself what it was given
        return ": ".join(filter(None, [key, problem["msg"].removeprefix(OURS)]))
    if problem["type"] != "extra_forbidden":
        given = "" if problem["type"] == "missing" else f" (given {problem['input']!r:.80})"
        return f"{key}: {problem['msg']}{given}"
    valid = _fields_at(root, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(sorted(valid))}"
    return f"{key}: no such setting; {hint}"


def _fields_at(root: type[Settings], location: list[Any]) -> list[str]:
    """The field names of the settings class found by walking `location` from `root`; all candidates of a union."""
    classes: list[type[Settings]] = [root]
    for part in location:
        if not isinstance(part, str):
            continue
        nexts = [
            c for cls in classes if part in cls.model_fields for c in _classes_in(cls.model_fields[part].annotation)
        ]
        classes = nexts or classes  # a union's tag stands in the location without being a field
    return sorted({name for cls in classes for name in cls.model_fields})


def _classes_in(annotation: Any) -> list[type[Settings]]:
    """Every Settings class mentioned in a type annotation."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, Settings) else []
    return [found for argument in typing.get_args(annotation) for found in _classes_in(argument)]
