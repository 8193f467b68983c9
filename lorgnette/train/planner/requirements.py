"""Packages that a run asks for and a plain installation lacks, looked for before anything is read or built."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from lorgnette.errors import SettingsError
from lorgnette.run import Run, StageConfig

TRACKER_NAMES = ("tensorboard", "wandb", "trackio")
"""Experiment trackers, each by the name of its package."""


def check_packages(run: Run, trackers: Sequence[str] = ()) -> None:
    """Check that the packages which a run needs are installed. Raises: SettingsError naming the one to install."""
    if any(_is_adapted(stage) for stage in run.stages):
        check_peft()
    check_trackers(trackers)


def check_peft() -> None:
    """Raises: SettingsError if PEFT is not installed."""
    if not _is_installed("peft"):
        raise SettingsError("modes lora and dora need PEFT: run `pip install 'lorgnette[lora]'`")


def check_trackers(names: Sequence[str]) -> None:
    """Raises: SettingsError for a tracker that is unknown, or whose package is not installed."""
    for name in names:
        if name not in TRACKER_NAMES:
            raise SettingsError(f"--log {name}: no such tracker; use one of {', '.join(TRACKER_NAMES)}")
    for name in names:
        if not _is_installed(name):
            raise SettingsError(f"--log {name}: is not installed; run `pip install {name}`")


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def _is_adapted(stage: StageConfig) -> bool:
    """Return whether a part of the model has adapters in a stage."""
    return any(part.mode in ("lora", "dora") for part in (stage.vision, stage.fusion, stage.language))
