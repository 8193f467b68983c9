"""The wheel holds what the package needs: its code, its data, the recipes and the studies."""

from __future__ import annotations

import zipfile

from hatchling.builders.wheel import WheelBuilder

from tests.house.source import ROOT, tracked_files


def test_the_wheel_holds_the_package_and_the_recipes(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert {path for path in files if path.startswith("lorgnette/")} <= held
    assert {f"lorgnette/{path}" for path in files if path.startswith(("recipes/", "studies/"))} <= held
    assert not {path for path in held if path.startswith(("corpus/", "tests/", "docs/", "runs/"))}
