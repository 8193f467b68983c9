"""Names of what costs are compared of: recipes, and checkpoints."""

from __future__ import annotations

from pathlib import Path

from lorgnette.errors import SettingsError
from lorgnette.run import find_recipe


def recipe_of(source: str) -> Path | None:
    """The recipe of that name or path; None for what can only be a checkpoint. Raises: SettingsError for neither."""
    try:
        return find_recipe(source)
    except SettingsError:
        if not Path(source).is_dir() and "/" not in source:
            raise
        return None
