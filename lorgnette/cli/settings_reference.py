"""`lorgnette settings`: every setting of a run with its type, default and meaning; their JSON Schema for editors."""

from __future__ import annotations

import ast
import difflib
import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from textwrap import fill, indent
from typing import Any, Literal

from lorgnette.errors import SettingsError
from lorgnette.hints import classes_in
from lorgnette.run import Run
from lorgnette.settings import Settings
from lorgnette.untrusted import quoted

WIDTH = 100
"""Columns of a meaning in the terminal."""


@dataclass(frozen=True)
class SettingsGroup:
    """Settings that stand together, at one or several places of the tree."""

    path: str
    """Dotted path, as `stages.lora`; empty for the run itself."""
    kind: str
    """Value of `kind` that chooses this group among others at its path; empty where there is one."""
    cls: type[Settings]

    @property
    def title(self) -> str:
        return " ".join(filter(None, (self.path or "run", self.kind and f"(kind: {self.kind})")))

    @property
    def about(self) -> str:
        """The docstring of the class, its paragraphs as lines."""
        return " ".join(inspect.cleandoc(self.cls.__doc__ or "").split("\n\n")[0].split())

    def settings(self) -> Iterator[tuple[str, str, str, str]]:
        """Name, type, default and meaning of each setting."""
        docs = field_docs(self.cls)
        for name, field in self.cls.model_fields.items():
            default = "required" if field.is_required() else shown(field.get_default(call_default_factory=True))
            yield name, "; ".join([words(field.annotation), *bounds(field.metadata)]), default, docs.get(name, "")


@cache
def all_groups() -> tuple[SettingsGroup, ...]:
    """Every group of settings of a run, in the order of the tree; one that stands at several places, at the first."""
    found: dict[type[Settings], SettingsGroup] = {}
    _collect(Run, "", found)
    return tuple(found.values())


def _collect(cls: type[Settings], path: str, found: dict[type[Settings], SettingsGroup]) -> None:
    if cls in found:
        return
    kind = cls.model_fields.get("kind")
    found[cls] = SettingsGroup(path, str(kind.default) if kind is not None and not kind.is_required() else "", cls)
    for name, field in cls.model_fields.items():
        for inner in classes_in(field.annotation):
            if issubclass(inner, Settings):
                _collect(inner, f"{path}.{name}" if path else name, found)


def groups_at(path: str) -> list[SettingsGroup]:
    """Groups at a dotted path: `stages.lora`, `stages.0.lora` and `stages.chat.lora` are the same.

    Raises: SettingsError with the nearest name for a path that leads nowhere.
    """
    here: list[type[Settings]] = [Run]
    walked, after_list = list[str](), False
    for part in filter(None, path.split(".")):
        inner = [one for cls in here if part in cls.model_fields for one in _inside(cls, part)]
        if not any(part in cls.model_fields for cls in here):
            valid = sorted({name for cls in here for name in cls.model_fields})
            if after_list and not difflib.get_close_matches(part, valid, n=1, cutoff=0.75):
                after_list = False  # the number or the name of an item
                continue
            near = difflib.get_close_matches(part, valid, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(valid)}"
            raise SettingsError(f"{'.'.join([*walked, quoted(part, 60)])}: no such setting; {hint}")
        after_list = any(typing.get_origin(cls.model_fields[part].annotation) is tuple for cls in here
                         if part in cls.model_fields)  # fmt: skip
        walked.append(part)
        if not inner:  # a setting by itself: the group that has it
            break
        here = inner
    kinds = {cls: cls.model_fields.get("kind") for cls in here}
    return [
        SettingsGroup(".".join(walked), str(kind.default) if kind is not None and not kind.is_required() else "", cls)
        for cls, kind in kinds.items()
    ]


def _inside(cls: type[Settings], name: str) -> list[type[Settings]]:
    return [one for one in classes_in(cls.model_fields[name].annotation) if issubclass(one, Settings)]


@cache
def field_docs(cls: type[Settings]) -> dict[str, str]:
    """The docstring behind each field of a class, those of its base classes too, each on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Settings) and base is not Settings:
            body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            for node, following in zip(body.body, body.body[1:], strict=False):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    text = following.value if isinstance(following, ast.Expr) else None
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        found[node.target.id] = " ".join(text.value.split())
    return found


def words(annotation: Any) -> str:
    """A type in words: `whole number or null`, `list of text`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return "; ".join([words(arguments[0]), *bounds(arguments[1:])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        if all(isinstance(one, type) and issubclass(one, Settings) for one in arguments):
            return "settings by `kind`"
        return " or ".join(words(one) for one in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {words(arguments[0])}"
        return f"list of {len(arguments)}: {words(arguments[0])}"
    if origin is dict:
        return "settings by name"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "settings"
    named = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return named.get(annotation, getattr(annotation, "__name__", str(annotation)))


def bounds(metadata: Any) -> list[str]:
    """Bounds of a number, as pydantic keeps them."""
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "not empty, at least"}
    return [
        f"{said} {getattr(one, name)}"
        for one in metadata
        for name, said in signs.items()
        if getattr(one, name, None) is not None
    ]


def shown(value: Any) -> str:
    """A default as YAML would have it; settings as `defaults`."""
    if isinstance(value, Settings):
        return "its defaults"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return str(value)


def lines(path: str) -> Iterator[str]:
    """Lines of `lorgnette settings PATH`. Raises: SettingsError for a path that leads nowhere."""
    for number, group in enumerate(groups_at(path) if path else all_groups()):
        yield from ["", ""][: bool(number)]
        yield group.title
        yield indent(fill(group.about, WIDTH), "  ")
        last = path.rpartition(".")[2]
        chosen = [one for one in group.settings() if one[0] == last] if group.path.endswith(last) and last else []
        for name, kind, default, about in chosen if chosen and not _inside(group.cls, last) else group.settings():
            yield f"  {name}: {kind} ({default})".replace("`", "")
            if about:
                yield indent(fill(about.replace("`", ""), WIDTH), "      ")


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe, with each setting's meaning; for `# yaml-language-server: $schema=...` of an editor."""
    made: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Run.model_json_schema()}
    by_name = {group.cls.__name__: group.cls for group in all_groups()}
    for name, part in [("Run", made), *made.get("$defs", {}).items()]:
        docs = field_docs(by_name[name]) if name in by_name else {}
        for key, value in part.get("properties", {}).items():
            value.pop("title", None)
            if docs.get(key):
                value["description"] = docs[key]
        if name in PRESETS:
            part["properties"]["preset"] = {"type": "string", "description": "A name of `lorgnette presets`."}
    return made


PRESETS = ("VLMConfig", "VisionConfig", "LanguageConfig")
"""Groups that a preset can fill."""
