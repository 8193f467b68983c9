"""A tiny model made of the two backbones that the package carries, and receipts to tune it on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorgnette.run import Run
from lorgnette.train.loop import train
from tests.train.conftest import short, squares, tiny
from tests.tuning.receipts import write_receipts

__all__ = ["base", "receipts", "short", "squares", "tiny"]


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """Folder of a run of one step: the shipped backbones and a connector that has learned nothing."""
    folder = tmp_path_factory.mktemp("base") / "base"
    run = Run.parse(
        {
            "name": "base",
            "threads": 1,
            "init": {"vision": "builtin:vision", "language": "builtin:language"},
            "model": {"preset": "micro"},
            "images": {"shortest": 48, "longest": 128, "patch": 16, "grid": 8, "keep_aspect": True},
            "stages": [
                {
                    "name": "stage1",
                    "sources": [{"kind": "pairs", "path": "builtin:validation/pairs"}],
                    "pack": {"tokens": 256, "patches": 512, "packs_per_step": 1},
                    "steps": 1,
                }
            ],
            "loader": {"workers": 0},
        }
    )
    train(run, folder)
    return folder


@pytest.fixture(scope="session")
def receipts(tmp_path_factory) -> Path:
    """A file of questions about 120 receipts."""
    return write_receipts(tmp_path_factory.mktemp("receipts"), 120)
