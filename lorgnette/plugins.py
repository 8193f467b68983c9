"""Plug-ins: benchmarks, metrics, sources, connectors and vision encoders of other packages.

A plug-in is named where a built-in kind would be, in one of two ways: by an entry point that an installed package
declares in a group such as `lorgnette.connectors`, or by a dotted name, `package.module:Name`. Naming one imports that
module, which runs its code. A file that others wrote, as a checkpoint or a results folder, cannot make that happen by a
dotted name alone: it is refused until the user names it too (`reading`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, TypeVar

from lorgnette.errors import SettingsError

log = logging.getLogger("lorgnette")

_Value = TypeVar("_Value")
_Group = Literal["benchmarks", "metrics", "sources", "connectors", "encoders"]
ALLOWED = "LORGNETTE_PLUGINS"
"""Environment variable: dotted names, separated by commas, that files may name too."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+:[A-Za-z_]\w*")
NAME_FORM = "package.module:Name"

_named_by_user: set[str] = set()
_reading: ContextVar[str] = ContextVar("reading", default="")


def is_dotted(name: str) -> bool:
    """Return whether a name has the form `package.module:Name`."""
    return DOTTED.fullmatch(name) is not None


def is_plugin(group: _Group, name: object) -> bool:
    """Return whether a name is a dotted one, or that of an entry point; nothing is imported."""
    return isinstance(name, str) and (is_dotted(name) or name in installed(group))


@cache
def installed(group: _Group) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of a group by name, as installed packages declare them."""
    return {one.name: one for one in importlib.metadata.entry_points(group=f"lorgnette.{group}")}


def find(group: _Group, name: str, kind: type[_Value]) -> _Value:
    """The plug-in of that name, an instance of `kind`.

    Raises: SettingsError if it cannot be imported, is of another type, or is named by a file alone.
    """
    found = _load(group, name)
    if not isinstance(found, kind):
        raise SettingsError(
            f"{group}: {name} is a {type(found).__name__}, not a {kind.__name__}; see docs/plugins.md for its form"
        )
    return found


def find_class(group: _Group, name: str, base: type[_Value]) -> type[_Value]:
    """The plug-in of that name, a class that derives from `base`. Raises: as `find`."""
    found = _load(group, name)
    if not (isinstance(found, type) and issubclass(found, base)):
        said = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise SettingsError(
            f"{group}: {name} is a {said}, which does not derive from {base.__module__}.{base.__name__}; let it do so"
        )
    return found


def settings_of(
    group: _Group, base: type[Any], built_in: Iterable[type[Any]]
) -> Callable[[Any, Callable[[Any], Any], Any], Any]:
    """A wrapping validator of settings with a `kind`: one that names a plug-in is read by the plug-in's own settings.

    base: the class of settings that a plug-in derives from. built_in: classes whose kinds no entry point replaces.
    """
    known = {one.model_fields["kind"].default for one in built_in}

    def read(values: Any, parse: Callable[[Any], Any], info: Any) -> Any:
        kind = values.get("kind") if isinstance(values, dict) else None
        if isinstance(values, base):
            return values
        if not isinstance(kind, str) or kind in known or not is_plugin(group, kind):
            return parse(values)
        try:
            return find_class(group, kind, base).parse(values, kind, stored=bool(info.context))
        except SettingsError as error:
            raise ValueError(str(error)) from None

    return read


def _load(group: _Group, name: str) -> Any:
    entry = None if is_dotted(name) else installed(group).get(name)
    target = entry.value if entry else name
    place = _reading.get()
    if place and not entry and name not in _named_by_user | set(os.environ.get(ALLOWED, "").split(",")):
        raise SettingsError(
            f"{place}: names code to run, {name}; if you trust that module, allow it by {ALLOWED}={name}"
        )
    found = import_named(target, f"{group}: {name}")
    if target not in _named_by_user and multiprocessing.parent_process() is None:
        log.warning("%s: runs code of %s (%s)", name, target.partition(":")[0], code_of(name, group) or "not installed")
    _named_by_user.update((name, target))
    return found


def import_named(name: str, where: str) -> Any:
    """Import what `package.module:Name` or `package.module.name` names. Raises: SettingsError, with `where`."""
    module, _, inner = name.partition(":") if ":" in name else name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), inner)
    except Exception as error:  # somebody else's module: whatever it raises is reported
        said = f"{type(error).__name__}: {error}" if not isinstance(error, ImportError | AttributeError) else error
        raise SettingsError(
            f"{where} cannot be imported ({said}); write it as {NAME_FORM} and install its package, or set PYTHONPATH"
        ) from None


def code_of(name: str, group: _Group) -> str:
    """Code that a plug-in runs: its package with the version, or a hash of its file if it is of no installed package.

    Raises: SettingsError if it cannot be imported.
    """
    entry = None if is_dotted(name) else installed(group).get(name)
    if entry is not None and entry.dist is not None:
        return f"{entry.dist.name} {entry.dist.version}"
    module = (entry.value if entry else name).partition(":")[0]
    owners = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    if owners:
        return f"{owners[0]} {importlib.metadata.version(owners[0])}"
    file = importlib.import_module(module).__file__ if module in _modules() else None
    if file is None:
        return ""
    with open(file, "rb") as stream:
        return f"sha256 {hashlib.sha256(stream.read()).hexdigest()[:16]}"


def _modules() -> set[str]:
    """Modules that plug-ins were loaded from."""
    return {target.partition(":")[0] for target in _named_by_user}


def record(*named: tuple[_Group, str]) -> dict[str, str]:
    """Return what is stored beside results: each plug-in's name -> the code behind it. Built-in ones are left out."""
    return {name: code_of(name, group) for group, name in named if is_plugin(group, name)}


def forget() -> None:
    """Forget which plug-ins were found and named, as after a package was installed, or between tests."""
    installed.cache_clear()
    _named_by_user.clear()


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Within it, settings are those of a file that others may have written: it cannot name code to run by itself.

    Names that the user gave in this process, that `LORGNETTE_PLUGINS` lists, and entry points of installed packages are
    accepted all the same. place: named in the refusal.
    """
    token = _reading.set(place)
    try:
        yield
    finally:
        _reading.reset(token)
