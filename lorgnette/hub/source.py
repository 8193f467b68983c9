"""Checkpoint folders by name: a path, a run, a backbone that the package carries, or a repository on the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lorgnette.errors import CheckpointError
from lorgnette.files import HUB_ID, expand_user
from lorgnette.inputs.tokenizer import read_json
from lorgnette.untrusted import quoted

SHIPPED = Path(__file__).with_name("shipped")
"""The backbones that the package carries (docs/backbones.md; `scripts/build_backbones.py` makes them)."""
BUILT_IN = "builtin:"
"""Prefix of the names of shipped models."""
OPEN_CLIP, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SETTINGS = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "lorgnette.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    INDEX,
    ADAPTER,
    OPEN_CLIP,
)
"""Files that are fetched first. The index says which weights follow."""


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint, fetched from the hub if `source` is no folder but reads `owner/name`.

    source: `owner/name@revision` names a branch, tag or commit, as `revision` does. `builtin:NAME` is one of
    `shipped_backbones`. A training run keeps its model in `model/`: the run's own folder will do.
    Raises: CheckpointError saying what is there instead, or why the hub did not give it.
    """
    folder = expand_user(source)
    if str(source).startswith(BUILT_IN):
        folder = SHIPPED / str(source).removeprefix(BUILT_IN)
        if not (folder / "config.json").is_file():
            *others, last = shipped_backbones()
            raise CheckpointError(f"{source}: there is no such backbone; there are {', '.join(others)} and {last}")
    folder = _of_run(folder)
    if os.path.isdir(folder):  # unlike Path.is_dir, false for a name that no file can have
        if revision is not None:
            raise CheckpointError(f"{folder}: is a folder, which has no revision {quoted(revision, 60)}")
        return _checked(folder)
    if os.path.exists(folder):
        raise CheckpointError(f"{folder}: is a file; give the folder of a checkpoint")
    named = HUB_ID.fullmatch(str(source))
    if named is None:
        raise CheckpointError(
            f"{quoted(str(source))}: no such folder; give that of a checkpoint, or owner/name of one on the hub"
        )
    if revision is not None and named["revision"] not in (None, revision):
        raise CheckpointError(f"{source}: names another revision than {quoted(revision, 60)}; give one of them")
    return fetch_checkpoint(named["name"], revision or named["revision"])


def is_here(source: str | Path) -> bool:
    """Return whether a checkpoint is a folder of this machine, or one that the package carries: nothing is fetched."""
    return str(source).startswith(BUILT_IN) or os.path.isdir(expand_user(source))


def shipped_backbones() -> list[str]:
    """Names of the backbones that the package carries, as `find_folder` takes them."""
    return sorted(f"{BUILT_IN}{file.parent.name}" for file in SHIPPED.glob("*/config.json"))


def _of_run(folder: Path) -> Path:
    """The model's folder of a run; any other folder itself."""
    if not os.path.isfile(folder / "run.yaml"):
        return folder
    if not (folder / "model").is_dir():
        raise CheckpointError(
            f"{folder}: the run has no model yet; the command that began it resumes it, and"
            " `lorgnette export` writes what it has learned so far"
        )
    return folder / "model"


def _checked(folder: Path) -> Path:
    if (folder / "progress.json").is_file():
        raise CheckpointError(
            f"{folder}: is a checkpoint to resume from; give the run's own folder, or, if the run is not finished,"
            " export it with `lorgnette export`"
        )
    if not any((folder / name).is_file() for name in ("config.json", ADAPTER, OPEN_CLIP)):
        raise CheckpointError(f"{folder}: holds no config.json, so it is not the folder of a checkpoint")
    return folder


def fetch_checkpoint(name: str, revision: str | None = None) -> Path:
    """The folder of a repository on the hub: settings and tokenizer first, then the weights that its index names.

    No other file is fetched: no pickle, no copy of the weights in another format, no state of an optimiser.
    Raises: CheckpointError if the hub, or the cache without a network, does not give it.
    """
    folder = _snapshot(name, revision, _SETTINGS)
    weights = shard_names(folder / INDEX) if (folder / INDEX).is_file() else [WEIGHTS]
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        weights = [ADAPTER_WEIGHTS]
    elif not (folder / "config.json").is_file() and (folder / OPEN_CLIP).is_file():
        weights = [OPEN_CLIP_WEIGHTS]
    folder = _snapshot(name, revision, weights)
    return _checked(folder)


def check_transformers(source: str) -> None:
    """Check that a folder or hub id holds a config.json, which is fetched, before transformers is imported.

    Raises: CheckpointError saying what is there instead, or why the hub did not give it.
    """
    named = HUB_ID.fullmatch(source)
    if os.path.isdir(expand_user(source)) or named is None:
        find_folder(source)
    else:
        _snapshot(named["name"], named["revision"], ["config.json"])


def _snapshot(name: str, revision: str | None, files: list[str] | tuple[str, ...]) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # a network fails in more ways than one can list
        place = name if revision is None else f"{name}@{revision}"
        said = quoted(next(iter(str(error).splitlines()), type(error).__name__))
        raise CheckpointError(
            f"{place}: no such folder here, and the hub did not give it ({said}); check the name, or without a network"
            " give a folder"
        ) from error


def shard_names(index: Path) -> list[str]:
    """The files of a sharded checkpoint, by its index. Raises: CheckpointError for one that is not beside the index."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: has no weight_map from tensors to files")
    for tensor, shard in places.items():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            raise CheckpointError(
                f"{index}: places {quoted(tensor, 80)} in {quoted(repr(shard), 80)}, which is not a file of this folder"
            )
    return sorted(set(places.values()))


SHARD = re.compile(r"[\w-][\w.-]*")
"""Names of shards: without a folder, and without what a pattern of the hub's client would read otherwise."""
