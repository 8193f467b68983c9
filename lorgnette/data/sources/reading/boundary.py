"""The boundary of a source: what its rows and pages may name, made of its settings and obeyed by every kind.

It is set once around the reading of a row and the converting of a source (`sources.table`), for all that is called
within, so that no kind of source can forget it. Where none is set, only files below a row's own folder are read.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from lorgnette.data.config import FilesConfig
from lorgnette.data.sources.reading.hub_sets import fetch_set, is_hub_set
from lorgnette.data.sources.reading.shards import hub_blobs, is_url, local_path
from lorgnette.inputs.access import Access, AccessError
from lorgnette.untrusted import quoted

_Result = TypeVar("_Result")


STRICT = Access()
"""The policy where no settings say anything."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Bounds on the paths that rows of a source may name. place: its path as the settings have it, or ""."""

    access: Access = STRICT
    place: str = ""
    image_folder: str = ""

    def below_url(self, folder: str, path: str) -> str:
        """The URL of a relative path, from the URL of a folder. Raises: AccessError if it leaves the source."""
        if "::" in path:  # fsspec would open another URL
            raise AccessError(f"{quoted(path)} is no path")
        scheme, _, inner = folder.rpartition("://")
        inner = inner.lstrip("/")
        target = posixpath.normpath(posixpath.join(inner, path))
        sources = {inner, self.place.rpartition("://")[2].strip("/")} if scheme in self.place else {inner}
        if not self.access.any_path and not any(target.startswith(f"{one.rstrip('/')}/") for one in sources if one):
            reason = f"{quoted(path)} leads outside of the source"
            raise self.access.advised(reason, "set `allow_outside: true` if you trust it")
        return f"{folder.rstrip('/')}/{path}"


NONE_DRAWN = Boundary()
_CURRENT: contextvars.ContextVar[Boundary] = contextvars.ContextVar("boundary", default=NONE_DRAWN)


def boundary() -> Boundary:
    """The boundary within which the caller runs."""
    return _CURRENT.get()


@contextlib.contextmanager
def drawn(line: Boundary) -> Iterator[None]:
    """Draws a boundary around what is called within the block, in this thread."""
    token = _CURRENT.set(line)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def boundary_of(config: FilesConfig) -> Boundary:
    """The boundary that a source's settings draw."""
    return _boundary(config, os.getcwd())


@functools.lru_cache(maxsize=64)
def _boundary(config: FilesConfig, start: str) -> Boundary:
    """As `boundary_of`; `start` is where relative paths begin, which a program may change."""
    root = folder_of_source(local_path(config.path) or config.path)
    roots = [] if root is None else [root, *hub_blobs(root)]
    if config.image_folder is not None:
        roots += [config.image_folder, *hub_blobs(config.image_folder)]
    access = Access(
        tuple(roots),
        frozenset(config.allow_hosts),
        frozenset(config.allow_schemes),
        any_path=config.allow_outside,
        proxy=config.allow_proxy,
    )
    return Boundary(access, config.path, config.image_folder or "")


def boundary_of_benchmark(path: str) -> Boundary:
    """The boundary of a benchmark's files: their own folder and public addresses, with no settings that allow more."""
    root = folder_of_source(local_path(path) or path)
    roots = () if root is None else (root, *hub_blobs(root))
    return Boundary(Access(roots, has_settings=False), path)


def folder_of_source(path: str) -> str | None:
    """The folder that a source lies in; None for a URL, and for what comes with the package."""
    if is_url(path) or path.startswith("builtin:"):
        return None
    if is_hub_set(path):
        return fetch_set(path)
    folder = os.path.abspath(path)
    while folder != os.path.dirname(folder) and not os.path.isdir(folder):  # what a glob's pattern stands for is none
        folder = os.path.dirname(folder)
    return folder


def reading_within(read: Callable[..., _Result]) -> Callable[..., _Result]:
    """`read(row, config, name)` within the boundary of its settings."""

    @functools.wraps(read)
    def bounded(row: Any, config: FilesConfig, name: str) -> _Result:
        with drawn(boundary_of(config)):
            return read(row, config, name)

    return bounded


def converting_within(convert: Callable[[Any], Iterator[_Result]]) -> Callable[[Any], Iterator[_Result]]:
    """`convert(config)` within the boundary of its settings, also while its generator waits for the next item."""

    @functools.wraps(convert)
    def bounded(config: FilesConfig) -> Iterator[_Result]:
        context = contextvars.copy_context()
        context.run(_CURRENT.set, boundary_of(config))
        items = context.run(convert, config)
        end = object()
        try:
            while (item := context.run(next, items, end)) is not end:
                yield item  # type: ignore[misc]
        finally:
            if close := getattr(items, "close", None):
                context.run(close)

    return bounded
