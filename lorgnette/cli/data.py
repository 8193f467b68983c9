"""`lorgnette data`: prepare sources, look at what will be trained on, and prove what was."""

from __future__ import annotations

import typer

data = typer.Typer(help="Prepare sources, see what will be trained on, prove what was.", no_args_is_help=True)


@data.callback()
def _group() -> None:
    """Keeps the verbs below a group even while there is one."""
