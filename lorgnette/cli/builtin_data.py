"""`lorgnette data builtin`: the parts of the built-in corpus, and the commands that generate more."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.data.builtin.shipped import shipped_parts
from lorgnette.errors import SettingsError
from lorgnette.output import say
from lorgnette.untrusted import quoted

GENERATOR = "the corpus generator is not part of the package"


def list_parts(console: Console) -> None:
    """Print the parts of the corpus that the package carries."""
    table = Table("part", "kind", "rows to train, validate, test", "what it is", box=None)
    for part in shipped_parts().values():
        table.add_row(part.name, part.kind, " / ".join(f"{part.rows[split]:,}" for split in SPLITS), part.about)
    console.print(table)
    say(console, "A source reads them as path: builtin:SPLIT/KIND. In a checkout, python -m corpus write makes more.")


def refuse(verb: str, arguments: Sequence[str]) -> None:
    """Refuse arguments that moved to `python -m corpus`. Raises: SettingsError naming both commands."""
    moved = {"builtin": "write", "fetch": "fetch"}[verb]
    given = shlex.join(arguments)
    command = f"python -m corpus {moved} {given}".strip()
    asked = f"lorgnette data {verb} {given}".strip()
    raise SettingsError(f"{quoted(asked)}: {GENERATOR}; in a checkout of lorgnette, run: {quoted(command)}")
