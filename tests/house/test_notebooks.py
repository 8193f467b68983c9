"""Notebooks of docs/notebooks: every cell runs, in order, at a size that takes seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.house.source import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SMALL = {"RECEIPTS": 24, "STEPS": 2, "LEAST": 1}
"""Values of the names in the cell tagged `parameters`, in the place of the notebook's own."""


def code_cells(notebook: dict[str, Any]) -> list[tuple[str, bool]]:
    """Source of each cell of code, and whether its names are parameters."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), "parameters" in cell["metadata"].get("tags", ())) for cell in cells]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for source, are_parameters in code_cells(json.loads(path.read_text(encoding="utf-8"))):
        exec(source, names)
        if are_parameters:
            assert set(re.findall(r"^(\w+) =", source, re.M)) == SMALL.keys()
            names |= SMALL
    printed = capsys.readouterr().out
    assert "after" in printed and "config.json" in printed
    assert names["found"].before.count == names["found"].after.count > 0
    assert (tmp_path / "runs/receipts/report.html").is_file()


def test_there_is_a_notebook_and_the_site_shows_it() -> None:
    assert [path.name for path in NOTEBOOKS] == ["first-hour.ipynb"]
    assert "notebooks/first-hour.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
