"""The package `fable` that docs/plugins.md describes, written out for tests: installed, or on `sys.path` alone."""

from __future__ import annotations

import io
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette import plugins
from tests.house.source import ROOT

DOTTED = {
    "metrics": "fable.metrics:FIRST_LETTER",
    "benchmarks": "fable.benchmarks:COLOURS",
    "sources": "fable.sources:Colours",
    "connectors": "fable.connectors:Average",
    "encoders": "fable.encoders:Colours",
}
SHORT = {
    "metrics": "first_letter",
    "benchmarks": "colours",
    "sources": "colours",
    "connectors": "mean",
    "encoders": "colours",
}
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "purple", "orange")
BOTH = pytest.mark.parametrize("names", [DOTTED, SHORT], ids=["by dotted name", "by entry point"])


def page_of_fable() -> str:
    return (ROOT / "docs/plugins.md").read_text(encoding="utf-8")


@pytest.fixture
def fable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package that the page describes, on `sys.path` and not installed."""
    root = tmp_path / "site"
    for name, code in re.findall(r"```python\n# (\S+)\n(.*?)```", page_of_fable(), re.DOTALL):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(code)
    (root / "fable/__init__.py").write_text("")
    monkeypatch.syspath_prepend(root)
    monkeypatch.delenv(plugins.ALLOWED, raising=False)
    plugins.forget()
    yield root
    plugins.forget()
    for name in [name for name in sys.modules if name.split(".")[0] == "fable"]:
        del sys.modules[name]


@pytest.fixture
def installed(fable: Path) -> Path:
    """The same with the metadata of an installed package: version 1.2, and the page's entry points."""
    (written,) = re.findall(r"```toml\n(.*?)```", page_of_fable(), re.DOTALL)
    groups = tomllib.loads(written)["project"]["entry-points"]
    info = fable / "fable-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fable\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("fable\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in of.items()) for group, of in groups.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    plugins.forget()
    return fable


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Squares as the page's source reads them (`train.parquet`), and as its benchmark does (`asked/`)."""
    folder = tmp_path / "data"
    (folder / "asked").mkdir(parents=True)
    rows = [
        {"image": {"bytes": square(n), "path": None}, "colour": COLOURS[n % 8] if n != 5 else ""} for n in range(16)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    asked = [
        {"image": row["image"], "question": "What colour?", "answers": [row["colour"] or "black"], "question_id": n}
        for n, row in enumerate(rows[:6])
    ]
    pq.write_table(pa.Table.from_pylist(asked), folder / "asked" / "test-0.parquet")
    return folder


def square(number: int) -> bytes:
    """A PNG of one colour; its size is its number's own."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (24 + 8 * (number // 8), 24), COLOURS[number % 8]).save(file, "PNG")
    return file.getvalue()
