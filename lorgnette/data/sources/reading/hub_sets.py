"""Data sets on the hub by their id, fetched once to the hub's cache: whole, or the files of a split or subset alone.

`owner/name` is all of it, `owner/name:train` a split, `owner/name:ai2d/train` a split of a subset; a revision stands
before the colon, `owner/name@main:train`. Parts are found as the library `datasets` finds them: by the `configs` of the
data set's card, else by names of files and folders. Of a set too large to be fetched, a URL names some of the files:
`hf://datasets/owner/name/data/train-0000*.parquet`.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.files import HUB_ID
from lorgnette.untrusted import parse_yaml, quoted

NOT_DATA = ("*.py", "*.sh", ".*")
"""Files of a repository that are not fetched."""
FILE_ENDINGS = (".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".tar", ".tgz", ".gz", ".zst", ".bz2", ".xz",
                ".pdf", ".html", ".htm", ".warc", ".txt", ".png", ".jpg", ".jpeg", ".webp")  # fmt: skip
"""Endings of a name that means a file here, though it reads like an id."""
PART = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""A split, a subset, or both: what may stand after the colon of an id."""
SPLIT_WORDS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"),
               "test": ("test", "testing", "eval", "evaluation")}  # fmt: skip
"""Splits -> words that name them in files and folders."""


def is_hub_set(path: str) -> bool:
    """Return whether a path is the id of a data set: nothing lies there, nor in a folder of the owner's name."""
    head, colon, part = path.partition(":")
    if not HUB_ID.fullmatch(head) or bool(colon) != bool(PART.fullmatch(part)) or path.lower().endswith(FILE_ENDINGS):
        return False
    return not os.path.lexists(path) and not os.path.isdir(path.partition("/")[0])


def set_name(path: str) -> str:
    """`owner/name` of the id of a data set."""
    return re.split("[@:]", path)[0]


def fetch_set(path: str) -> str:
    """The folder of a data set, fetched unless it is in the cache. It may hold more than the part that is asked for.

    Raises: DataError, why the hub did not give it, or which parts there are.
    """
    return _fetched(path)[0]


def files_of_part(path: str) -> frozenset[str] | None:
    """The files of the part that an id names, below the folder of `fetch_set`; None for the whole of it."""
    return _fetched(path)[1]


@cache
def _fetched(path: str) -> tuple[str, frozenset[str] | None]:
    import huggingface_hub

    head, _, asked = path.partition(":")
    named = HUB_ID.fullmatch(head)
    assert named is not None
    options: dict[str, Any] = {"repo_type": "dataset", "revision": named["revision"]}
    try:
        if not asked:
            whole = huggingface_hub.snapshot_download(named["name"], ignore_patterns=list(NOT_DATA), **options)
            return whole, None
        try:
            names = huggingface_hub.HfApi().list_repo_files(named["name"], **options)
            wanted = ["README.md"]
        except Exception:  # without a network what is in the cache is listed
            names, wanted = [], []
        folder = huggingface_hub.snapshot_download(named["name"], allow_patterns=wanted or None, **options)
        names = names or [one.relative_to(folder).as_posix() for one in Path(folder).rglob("*") if one.is_file()]
        part = chosen_files(asked, _data_files(names), card_parts(Path(folder) / "README.md"))
        if part and wanted:
            patterns = [glob.escape(name) for name in part]
            folder = huggingface_hub.snapshot_download(named["name"], allow_patterns=patterns, **options)
    except Exception as error:  # a network fails in more ways than one can list
        said = quoted(next(iter(str(error).splitlines()), type(error).__name__))
        raise DataError(
            f"{path}: no such file or folder here, and the hub did not give a data set of that id ({said}); check the"
            " name, or without a network give a folder"
        ) from error
    if not part:
        tree = sorted({name.rpartition("/")[0] or name for name in _data_files(names)})
        shown = quoted(", ".join(tree[:8]), 300)
        raise DataError(f"{path}: no file of the data set is of {asked!r}; it has {shown}; leave it out for all")
    return folder, frozenset(part)


def _data_files(names: Sequence[str]) -> list[str]:
    """Files that may hold rows or images, of all files of a repository."""
    skipped = ("README.md", "LICENSE", "dataset_infos.json")
    hidden = (name for name in names if not any(piece.startswith(".") for piece in name.split("/")))
    return sorted(name for name in hidden if name not in skipped and not fnmatch.fnmatch(name, "*.py"))


def card_parts(card: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """(subset, split, globs of files) of each part that the metadata of a data set's card names; none without any."""
    if not card.is_file():
        return []
    text = card.read_text(encoding="utf-8", errors="replace")
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    values = parse_yaml(front[1], str(card)) if front else {}
    configs = values.get("configs") if isinstance(values, dict) else None
    return [part for config in configs or () if isinstance(config, dict) for part in _parts_of(config)]


def _parts_of(config: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    subset, files = str(config.get("config_name", "default")), config.get("data_files")
    for one in files if isinstance(files, list) else [files]:
        if isinstance(one, dict) and "path" in one:
            paths = one["path"] if isinstance(one["path"], list) else [one["path"]]
            yield subset, str(one.get("split", "train")), tuple(map(str, paths))
        elif isinstance(one, str):
            yield subset, "train", (one,)


def chosen_files(part: str, names: Sequence[str], parts: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[str]:
    """The files of a part, of the names of a repository's: as its card says, else by words in names and folders."""
    words = part.split("/")
    if parts:
        both = [globs for subset, split, globs in parts if words in ([subset, split], [split])]
        both = both or [globs for subset, _, globs in parts if words == [subset]]
        return [name for name in names if any(fnmatch.fnmatchcase(name, one) for globs in both for one in globs)]
    return [name for name in names if all(_names(word, name) for word in words)]


def _names(word: str, name: str) -> bool:
    """Return whether a word, or another for the same split, stands by itself in a file's name or folders."""
    others = next((words for words in SPLIT_WORDS.values() if word in words), (word,))
    return any(re.search(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z])", name) for one in others)
