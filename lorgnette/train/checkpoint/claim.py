"""Locks a run's folder for one training at a time and one run's settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.files import DiskError, check_own, check_replaceable, hold, write_json, write_text
from lorgnette.hub.export import check_checkpoint_folder
from lorgnette.run import CHANGEABLE, Run, read_run
from lorgnette.train.adapters.peft import WRITTEN_ADAPTER
from lorgnette.train.checkpoint import manager
from lorgnette.train.checkpoint.unchanged import FILE
from lorgnette.train.logging.log import read_log
from lorgnette.train.parallel import DistributedContext
from lorgnette.untrusted import parse_yaml, quoted, read_json

log = logging.getLogger("lorgnette")

PLACE = re.compile(r"stages\.[0-9]+\.sources\.[0-9]+\.(path|prepared)")
"""Settings that say where a source lies. They may change where its contents are compared; see `unchanged`."""


class BusyError(LorgnetteError):
    """Another process trains in the folder."""

    alike = True


def claim(folder: Path, run: Run, world: DistributedContext) -> Callable[[], None]:
    """Lock a folder for this run, check that it holds no other, and write the settings to `run.yaml`.

    Every rank must ask; the first holds the lock for all. Returns what lets go of it.
    Raises: BusyError if another process trains there; SettingsError if it holds a run of other settings, or what no run
    wrote under a run's names; CheckpointError and DiskError for what could not be written at the end.
    """
    release: Callable[[], None] = _nothing
    with world.alike():
        if world.is_main:
            release = _claim(folder, run)
    return release


def _keep_plugins(file: Path, run: Run) -> None:
    """Write the code behind the plug-ins of a run; say so where it is not that of an earlier session."""
    now: dict[str, str] = run.plugins()
    before: Any = read_json(file) if file.is_file() else {}
    for name, code in now.items():
        known = before.get(name, code) if isinstance(before, dict) else code
        if known != code:
            log.warning("%s: this run began with %s of %s; it is %s now", file.parent, name, quoted(str(known)), code)
    if now != before:
        write_json(file, now)


def _nothing() -> None:
    """Release the lock of a rank that holds none."""


def _claim(folder: Path, run: Run) -> Callable[[], None]:
    try:
        release = hold(folder / ".lock", f"{folder}: another process trains in this folder; choose another one")
    except DiskError:
        raise
    except LorgnetteError as error:
        raise BusyError(str(error)) from None
    try:
        _check_foreign(folder, run)
        _check(folder, run)
        manager.remove_unfinished(folder / "checkpoints")
        write_text(folder / "run.yaml", run.to_yaml())
        _keep_plugins(folder / "plugins.json", run)
    except BaseException:
        release()
        raise
    return release


_OURS = (
    *("log.jsonl", "validation.jsonl", "evaluation.jsonl", "data.json", "plugins.json", "packs-*.json"),
    *("report.html", "results.json"),
    *("checkpoints", "adapters", "replay", "evaluation", "eval", "best", "model"),
)
"""Names that a run writes in its folder, besides `run.yaml`, which comes first."""


def _check_foreign(folder: Path, run: Run) -> None:
    """Raises: LorgnetteError naming what a run would write over, or could not write beside, and no run wrote."""
    settings = folder / "run.yaml"
    if not os.path.lexists(settings):
        found = sorted(path.name for name in _OURS for path in folder.glob(name))
        if found:
            raise SettingsError(
                f"{folder}: holds {found[0]} but no run.yaml, so no run of ours wrote it; choose another folder"
            )
    else:
        check_own(settings, _is_run)
    check_checkpoint_folder(folder / "model")
    check_checkpoint_folder(folder / "best")
    for stage in run.stages:
        adapters = folder / "adapters" / stage.name
        check_checkpoint_folder(adapters / "base")
        for kind in ("lora", "dora"):
            check_replaceable(adapters / kind, WRITTEN_ADAPTER)


def _is_run(content: bytes) -> bool:
    """True if a file has the keys of a run.yaml, of this version or another."""
    try:
        values = parse_yaml(content.decode("utf-8-sig", "replace"), "")
    except LorgnetteError:
        return False
    return isinstance(values, dict) and {"name", "seed", "stages"} <= values.keys()


def _check(folder: Path, run: Run) -> None:
    """Raises: SettingsError if the folder holds a run of other settings that has begun."""
    settings = folder / "run.yaml"
    if not settings.exists() or not (manager.checkpoints(folder / "checkpoints") or read_log(folder / "log.jsonl")):
        return
    known = (folder / FILE).is_file()
    for key, (old, new) in read_run(folder).diff(run).items():
        if key.split(".")[0] not in CHANGEABLE and not (known and PLACE.fullmatch(key)):
            raise SettingsError(
                f"{folder} holds a run of other settings ({key} is {quoted(str(old))} there, {quoted(str(new))} here):"
                f" choose another folder, or remove this one; only {', '.join(CHANGEABLE)} may change within a run"
            )
