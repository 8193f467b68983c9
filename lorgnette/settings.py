"""Typed, frozen settings that round-trip through YAML, refuse typos, can be overridden, hashed and compared.

Every group of settings in lorgnette derives from `Settings`; `lorgnette.run.Run` is the tree that holds them all.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import pydantic
import yaml

from lorgnette.errors import DataError, LorgnetteError, SettingsError
from lorgnette.untrusted import QUOTED, parse_yaml, quoted, read_yaml

_Value = TypeVar("_Value")
VALIDATOR_PREFIX = "Value error, "
"""Prefix that pydantic puts before the message of a validator."""
MOST_PROBLEMS = 8
"""Wrong settings that one message names."""
INTEGER_BITS = 64
"""Bits of the largest whole numbers: what generators, tensors and files can hold."""
STORED = {"stored": True}
"""Context of a validation of settings that lorgnette wrote: former names are read."""
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
"""A number that YAML 1.1 reads as text, because it has no dot or no sign in its exponent."""


class Settings(pydantic.BaseModel):
    """A frozen group of settings. Unknown keys are refused with the nearest valid name.

    Raises: SettingsError naming every wrong key, as `parse` does.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of settings, each with its name today. A former name is refused with the new one in what a user
    writes, and read in what an earlier version stored."""

    if not typing.TYPE_CHECKING:  # type checkers know the fields as pydantic's own constructor does

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except pydantic.ValidationError as error:
                raise SettingsError(f"{type(self).__name__}: {_explain_all(type(self), error)}") from None

        __init__.__pydantic_base_init__ = True  # pydantic calls it for what is written in Python, not for nested values

    @pydantic.model_validator(mode="before")
    @classmethod
    def _prepare(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        """Read former names of stored settings. Refuse true and false for a number: pydantic would read 1 and 0."""
        if info.context is STORED and isinstance(values, dict):
            values = {cls.renamed.get(name, name): value for name, value in values.items()}
        for name, value in values.items() if isinstance(values, dict) else ():
            inner = value if isinstance(value, list | tuple) else [value]
            if name in cls.model_fields and any(isinstance(one, bool) for one in inner):
                kinds = set(_types_in(cls.model_fields[name].annotation))
                if bool not in kinds and kinds & {int, float}:
                    raise ValueError(f"{name} is a number, not {str(value).lower()}")
        return values

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "settings", *, stored: bool = False) -> Self:
        """Build from plain values (as read from YAML). `where` names their origin in errors; `stored` as of `load`.

        Raises: SettingsError naming every wrong key, with the nearest valid one for an unknown key.
        """
        try:
            return cls.model_validate(values, context=STORED if stored else None)
        except pydantic.ValidationError as error:
            raise SettingsError(f"{where}: {_explain_all(cls, error)}") from None

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = (), *, stored: bool = False) -> Self:
        """Read a YAML file and apply dotted overrides such as `stages.0.lr=1e-4`.

        stored: whether lorgnette itself wrote the file, perhaps with former names of settings.
        Raises: SettingsError naming the file, the key or the override.
        """
        values = read_yaml(path, SettingsError)
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise SettingsError(f"{path}: holds a {type(values).__name__}; expected `key: value` lines")
        values = _checked(values, str(path))
        if stored:
            values = cls.parse(values, str(path), stored=True).plain()
        return cls._overridden(values, overrides, str(path))

    def override(self, *overrides: str) -> Self:
        """A copy with dotted overrides applied: `run.override("stages.0.lr=1e-4")`."""
        return type(self)._overridden(self.plain(), overrides, "override")

    @classmethod
    def _overridden(cls, values: dict[str, Any], overrides: Iterable[str], where: str) -> Self:
        """Parse `values` with overrides applied. A text setting takes an override as it is written: `name=1e5`."""
        given = [apply_override(values, override) for override in overrides]
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            places = [_place(values, problem["loc"]) for problem in error.errors() if problem["type"] == "string_type"]
            texts = {(id(here), key): text for here, key, text in given}
            found = [(here, key) for here, key in places if (id(here), key) in texts]
            for here, key in found:
                here[key] = texts[id(here), key]
            if not found:
                raise SettingsError(f"{where}: {_explain_all(cls, error)}") from None
        return cls.parse(values, where)

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


def typed(kind: type[_Value], value: Any, where: str, error: type[LorgnetteError] = DataError) -> _Value:
    """A parsed value as a dataclass, its fields of the types that are declared; other keys are left out.

    Raises: `error` if a field lacks or is of another type.
    """
    try:
        made: _Value = _adapter(cast(Any, kind)).validate_python(value)
        return made
    except pydantic.ValidationError as problem:
        first = problem.errors()[0]
        said = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise error(f"{where}: is damaged ({quoted(said)})") from None


@cache
def _adapter(kind: Any) -> Any:
    return pydantic.TypeAdapter(kind)


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


def apply_override(values: dict[str, Any], override: str) -> tuple[Any, Any, str]:
    """Set one dotted key in nested plain values, in place. The value is read as YAML, with `1e-4` a number.

    Returns the mapping or list that was changed, the key or index in it, and the value's text.
    Raises: SettingsError naming the override.
    """
    where = f"override {quoted(override)!r}"
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SettingsError(f"{where}: write it as key=value, for example stages.0.lr=1e-4")
    value = _checked(parse_yaml(text, where, SettingsError), where)
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    *parents, last = key.split(".")
    if not all((*parents, last)):
        raise SettingsError(f"{where}: a part of its key is empty; write it as stages.0.lr=1e-4")
    here: Any = values
    for part in parents:
        here = _descend(here, part, where)
    place: str | int = last
    if isinstance(here, list):
        place = _index(here, last, where)
    elif not isinstance(here, dict):
        raise SettingsError(f"{where}: there is nothing to set inside a {type(here).__name__}")
    here[place] = value
    return here, place, text.strip()


def _descend(here: Any, part: str, where: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, part, where)]
    if isinstance(here, dict):
        if here.get(part) is None:
            here[part] = {}
        return here[part]
    raise SettingsError(f"{where}: {quoted(part)!r} has no settings inside")


def _index(here: list[Any], part: str, where: str) -> int:
    """An index of a list: a number, of which only digits of ASCII count, or the `name` of one of its groups."""
    names = [str(one.get("name", "")) if isinstance(one, dict) else "" for one in here]
    if part in names:
        return names.index(part)
    if not (part.isascii() and part.isdecimal() and len(part) < 10) or int(part) >= len(here):
        known = ", ".join(filter(None, names))
        raise SettingsError(
            f"{where}: {quoted(part)!r} is not an index below {len(here)}"
            + (f", or one of {quoted(known)}" if known else "")
        )
    return int(part)


def _checked(value: Any, where: str, key: str = "") -> Any:
    """A copy of a value read from YAML, without the shared parts that its aliases made.

    Raises: SettingsError naming the key, for a key that is not text or a value of a type that no setting has.
    """
    at = f"{where}: {quoted(key)}" if key else where
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise SettingsError(f"{at}: the key {quoted(name)} is a {type(name).__name__}; keys are text")
        return {name: _checked(inner, where, f"{key}.{name}" if key else name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_checked(inner, where, f"{key}.{number}" if key else str(number)) for number, inner in enumerate(value)]
    if isinstance(value, int) and value.bit_length() >= INTEGER_BITS:
        raise SettingsError(f"{at}: the number has more than {INTEGER_BITS} bits")
    if value is not None and not isinstance(value, str | int | float):
        raise SettingsError(f"{at}: holds a {type(value).__name__}; no setting is one")
    if isinstance(value, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise SettingsError(f"{at}: {quoted(value)!r} holds a character that no text has")
    return value


def _place(values: Any, location: Iterable[Any]) -> tuple[Any, Any]:
    """The innermost mapping or list that a location of pydantic's names, and the key in it.

    A location also holds tags of unions, which are no keys of the values and are passed over.
    """
    here, key, inner = None, None, values
    for part in location:
        if (isinstance(inner, dict) and part in inner) or (isinstance(inner, list) and isinstance(part, int)):
            here, key, inner = inner, part, inner[part]
    return here, key


def _explain_all(root: type[Settings], error: pydantic.ValidationError) -> str:
    """The problems that pydantic found, as one sentence."""
    problems = error.errors()
    said = [_explain(root, problem) for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        said.append(f"and {len(problems) - MOST_PROBLEMS} more")
    return "; ".join(said)


def _explain(root: type[Settings], problem: Any) -> str:
    """One pydantic problem as a phrase for people."""
    location = list(problem["loc"])
    key = quoted(".".join(str(part) for part in location))
    if problem["type"] == "value_error":  # a rule of ours, which says itself what it was given
        return ": ".join(
            filter(None, [key, _shortened(problem["msg"].removeprefix(VALIDATOR_PREFIX), problem["input"])])
        )
    if problem["type"] != "extra_forbidden":
        given = "" if problem["type"] == "missing" else f" (given {quoted(repr(problem['input']), 80)})"
        return f"{key}: {_shortened(problem['msg'], problem['input'])}{given}"
    classes = _classes_at(root, location[:-1])
    for cls in classes:
        if location[-1] in cls.renamed:
            return f"{key}: is now called {cls.renamed[location[-1]]}"
    valid = sorted({name for cls in classes for name in cls.model_fields})
    near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(sorted(valid))}"
    return f"{key}: no such setting; {hint}"


def _shortened(message: str, given: Any) -> str:
    """A message in which no text of the settings that it speaks of stands at full length."""
    for text in _texts(given):
        if len(text) > QUOTED // 4:
            for form in (repr(text)[1:-1], text):
                message = message.replace(form, quoted(text, QUOTED // 4))
    return message


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _classes_at(root: type[Settings], location: list[Any]) -> list[type[Settings]]:
    """The settings class found by walking `location` from `root`; all candidates of a union."""
    classes: list[type[Settings]] = [root]
    for part in location:
        if not isinstance(part, str):
            continue
        nexts = [
            c for cls in classes if part in cls.model_fields for c in _classes_in(cls.model_fields[part].annotation)
        ]
        classes = nexts or classes  # a union's tag stands in the location without being a field
    return classes


def _types_in(annotation: Any) -> Iterable[Any]:
    """Every type mentioned in a type annotation; of a literal, those of its values."""
    arguments = typing.get_args(annotation)
    if not arguments:
        yield annotation if isinstance(annotation, type) else type(annotation)
    for argument in arguments:
        yield from _types_in(argument)


def _classes_in(annotation: Any) -> list[type[Settings]]:
    """Every Settings class mentioned in a type annotation."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, Settings) else []
    return [found for argument in typing.get_args(annotation) for found in _classes_in(argument)]


def shipped_folder(kind: str) -> Path:
    """The folder `recipes` or `studies`: an installed package carries it, a checkout has it beside the package."""
    package = Path(__file__).parent
    return package / kind if (package / kind).is_dir() else package.parent / kind


def find_shipped(name: str, kind: str, what: str) -> Path:
    """The path of a YAML file given by path, or by its name in a shipped folder; `what` names it in errors.

    Raises: SettingsError with the names that there are.
    """
    if os.path.exists(name) and not os.path.isdir(name):
        return Path(name)
    folder = shipped_folder(kind)
    found = folder / f"{name.removesuffix('.yaml').removeprefix(f'{kind}/')}.yaml"
    if os.path.isfile(found):
        return found
    names = ", ".join(sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")))
    if kind == "recipes" and os.path.isdir(name):
        raise SettingsError(
            f"{quoted(name)}: is a folder without run.yaml, so no run; give a YAML file or one of: {names}"
        )
    raise SettingsError(f"{quoted(name)}: no such {what}; give the path of a YAML file or one of: {names}")
