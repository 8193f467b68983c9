"""The sizes that a results folder states are held to what a split can have, before anything is made of them."""

from __future__ import annotations

import json

import pytest

from lorgnette.cli.results import submission
from lorgnette.errors import DataError
from tests.fuzz.run_folders import evaluation


@pytest.mark.parametrize("size", ["3", 3.0, True, None, -1, 10**18, 10**4000])
def test_a_damaged_size_is_refused(tmp_path, size):
    folder = tmp_path / "results"
    folder.mkdir()
    evaluation(folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    text = json.dumps(settings | {"size": "SIZE"}).replace('"SIZE"', repr_of(size))
    (folder / "settings.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"names no split and its size|is damaged|is not JSON"):
        submission(folder, tmp_path / "out.json", True)


def repr_of(size: object) -> str:
    """JSON of a size, also of a number with more digits than Python writes."""
    return "1" + "0" * 4000 if isinstance(size, int) and size > 10**100 else json.dumps(size)
