"""Checks of arguments that name models, recipes and files, before torch is imported: a wrong name is said at once.

Rooms are imported inside the functions: to refuse the name of a model takes none that reads data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorgnette.errors import SettingsError
from lorgnette.hub.source import find_folder
from lorgnette.untrusted import quoted

if TYPE_CHECKING:
    from lorgnette.data.config import PreparedConfig
    from lorgnette.run import Run


def find_model(model: str, adapter: str | None = None) -> str:
    """The folder of a model, fetched from the hub if it is an id. Raises: CheckpointError, for its adapter too."""
    folder = str(find_folder(model))
    if adapter is not None:
        find_folder(adapter)
    return folder


def is_unfinished(model: str) -> bool:
    """Return whether a name is the folder of a run that has no model yet."""
    return os.path.isfile(Path(model) / "run.yaml") and not os.path.isdir(Path(model) / "model")


def check_shown(name: str) -> None:
    """Check that a name is a recipe's or a checkpoint's. Raises: SettingsError or CheckpointError."""
    from lorgnette.train.planner.recipe_names import recipe_of

    if recipe_of(name) is None:
        find_folder(name)


def check_recipe(name: str) -> None:
    """Refuse a file of rows where a recipe is meant. Raises: SettingsError, with the option that reads it."""
    from lorgnette.data.detect_kind import ROW_ENDINGS
    from lorgnette.data.sources.reading.compressed import expanded_name

    endings = tuple(one for one in ROW_ENDINGS if one != ".json")  # JSON is YAML, and may be a recipe
    if expanded_name(name).endswith(endings) and os.path.isfile(name):
        raise SettingsError(
            f"{quoted(name)}: is a file of rows, not a recipe; give --kind chat (or another) and --tokenizer FOLDER, or"
            f" train on it by `lorgnette tune MODEL {quoted(name)}`"
        )


def check_init(run: Run) -> None:
    """Check that the models which a run starts from are there. Raises: CheckpointError."""
    for folder in filter(None, (run.init.model, run.init.vision, run.init.language)):
        find_folder(folder)


def check_run(run: Run, trackers: Sequence[str] = ()) -> None:
    """Check that the models, files and packages of a run are there. Raises: CheckpointError, DataError, SettingsError.

    trackers: names of the experiment trackers that it is logged to.
    """
    from lorgnette.train.planner.requirements import check_packages

    check_packages(run, trackers)
    check_init(run)
    check_files(source for stage in run.stages for source in stage.sources)
    check_files(run.validation.sources)


def check_files(sources: Iterable[PreparedConfig]) -> None:
    """Check that the files of sources are there; what plug-ins read, and URLs, are left to whoever reads them.

    Raises: DataError naming the path.
    """
    from lorgnette.data.config import SourcePlugin
    from lorgnette.data.sources.reading.shards import is_url, list_files

    for source in sources:
        if not isinstance(source, SourcePlugin) and not is_url(source.path):
            list_files(source.path, ("",))


def check_data(paths: Iterable[str], kind: str | None) -> None:
    """Check that files of data are there, and their kind, if it is given. Raises: DataError, SettingsError."""
    from lorgnette.data.inspect import source_config
    from lorgnette.data.sources.reading.shards import is_url, list_files

    for path in paths:
        if kind is not None:
            check_files([source_config(kind, path, [])])
        elif not is_url(path):
            list_files(path, ("",))
