"""Benchmarks by name, one short file each. A benchmark's data is read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from lorgnette.errors import SettingsError
from lorgnette.eval.task import Task
from lorgnette.eval.tasks.drawings import drawings

TASKS: dict[str, Callable[[], Task]] = {"drawings": drawings}


def task_named(name: str) -> Task:
    """Raises: SettingsError with the names that there are."""
    if name not in TASKS:
        raise SettingsError(f"no task is called {name!r}; there are: {', '.join(sorted(TASKS))}")
    return TASKS[name]()
