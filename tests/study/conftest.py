"""A study so small that a cell takes a second: the shipped backbones, two steps, four questions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from lorgnette.study.cells import jobs_of
from lorgnette.study.config import Study
from lorgnette.study.result_rows import RowStore
from lorgnette.study.run_cells import run_study

BASE = {
    "name": "tiny",
    "threads": 1,
    "init": {"vision": "builtin:vision", "language": "builtin:language"},
    "model": {"preset": "micro"},
    "images": {"shortest": 48, "longest": 64, "patch": 16, "grid": 8, "keep_aspect": True},
    "stages": [
        {
            "name": "stage1",
            "sources": [{"kind": "pairs", "path": "builtin:validation/pairs"}],
            "pack": {"tokens": 256, "patches": 512, "packs_per_step": 1},
            "steps": 2,
            "vision": {"mode": "frozen"},
        }
    ],
    "validation": {"sources": [{"kind": "pairs", "path": "builtin:validation/pairs", "name": "pairs"}]},
    "checkpoints": {"every": 1, "keep": 1},
    "loader": {"workers": 0},
}
SCALE = {"base": "tiny.yaml", "seeds": 1, "tasks": ["scene_vqa"], "questions": 4, "heldout": 4}
STUDY = {
    "name": "mine",
    "question": "Does freezing the vision encoder hurt?",
    "scales": {"micro": SCALE},
    "cells": [{"name": "frozen"}, {"name": "trained", "changes": {"stages.0.vision.mode": "full"}}],
    "claims": [{"cell": "trained", "over": "frozen", "by": "loss", "kind": "less"}],
}


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny.yaml"
    path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_study(tiny_base) -> Study:
    return Study.parse(STUDY | {"scales": {"micro": SCALE | {"base": str(tiny_base)}}})


@pytest.fixture(scope="session")
def _measured(tiny_study, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    store = RowStore(folder, shipped=False)
    with (folder / "printed.txt").open("w", encoding="utf-8") as file:
        for job in jobs_of(tiny_study, "mine.yaml", "micro"):
            run_study([job], store, Console(file=file, width=200))
    return folder


@pytest.fixture
def measured(_measured, tmp_path) -> RowStore:
    """A copy of a folder with all rows of the tiny study."""
    shutil.copytree(_measured, tmp_path / "studies")
    return RowStore(tmp_path / "studies", shipped=False)
