"""What `lorgnette data fetch` prints."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from lorgnette.data.fetch import CITATION, MATERIALS, fetch
from lorgnette.output import say


def fetch_material(console: Console, name: str | None, folder: Path) -> None:
    """Fetch one material and say what came of it; without a name, list what there is."""
    if name is None:
        table = Table("name", "kind", "from", "what", box=None)
        for title, one in MATERIALS.items():
            table.add_row(title, one.kind, f"{one.client} {one.package}", f"{one.about} {one.licence}.")
        console.print(table)
        return
    fetched = fetch(name, folder, console)
    target = folder / name
    if fetched is None:
        say(console, f"{target} is there already; delete it to fetch it again")
        return
    left_out = f", {len(fetched.left_out):,} left out ({CITATION} names them)" if fetched.left_out else ""
    say(console, f"Wrote {target}: {fetched.kept:,} files{left_out}.")
    advice = f"Licence and how to cite: {target / CITATION}. As a source: kind: {MATERIALS[name].kind}, path: {target}"
    say(console, advice)
