"""`lorgnette data builtin`: write the built-in corpus, or more of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lorgnette.data.builtin.corpus import PARTS, Written, write_corpus
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.output import say


def write(
    folder: Path, scale: float, parts: Sequence[str], splits: Sequence[str], seed: int, fresh: bool, console: Console
) -> None:
    """Write the corpus below a folder and say what was written, and how to train on it."""
    written = write_corpus(folder, scale, parts or None, splits or SPLITS, seed=seed, fresh=fresh)
    console.print(_table(written))
    total = sum(file.bytes for file in written) / 1e6
    kinds = sorted({PARTS[Path(file.file).stem].kind for file in written} - {"benchmark"})
    say(console, f"Wrote {sum(file.rows for file in written):,} rows, {total:.1f} MB, to {folder}.")
    split = Path(written[0].file).parts[0]
    for kind in kinds:
        say(console, f"  {{kind: {kind}, path: {folder / split / kind}}}")


def list_parts(console: Console) -> None:
    """What parts there are."""
    table = Table("part", "kind", "rows to train, validate, test", "what it is", box=None)
    for part in PARTS.values():
        table.add_row(part.name, part.kind, " / ".join(f"{part.counts[split]:,}" for split in SPLITS), part.about)
    console.print(table)


def _table(written: Sequence[Written]) -> Table:
    table = Table("file", box=None)
    for name in ("rows", "KB"):
        table.add_column(name, justify="right")
    for file in written:
        table.add_row(file.file, f"{file.rows:,}", f"{file.bytes / 1e3:,.0f}")
    return table
