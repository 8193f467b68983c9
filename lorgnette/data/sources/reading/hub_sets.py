"""Data sets on the hub by their id, `owner/name` or `owner/name@revision`: fetched once, whole, to the hub's cache.

A set too large to be fetched is read in part by a URL: `hf://datasets/owner/name/data/train-0000*.parquet`.
"""

from __future__ import annotations

import os
from functools import cache

from lorgnette.errors import DataError
from lorgnette.files import HUB_ID
from lorgnette.untrusted import quoted

NOT_DATA = ("*.py", "*.sh", ".*")
"""Files of a repository that are not fetched."""
FILE_ENDINGS = (".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".tar", ".tgz", ".gz", ".zst", ".bz2", ".xz",
                ".pdf", ".html", ".htm", ".warc", ".txt", ".png", ".jpg", ".jpeg", ".webp")  # fmt: skip
"""Endings of a name that means a file here, though it reads like an id."""


def is_hub_set(path: str) -> bool:
    """Return whether a path is the id of a data set: nothing lies there, nor in a folder of the owner's name."""
    if not HUB_ID.fullmatch(path) or path.lower().endswith(FILE_ENDINGS):
        return False
    return not os.path.lexists(path) and not os.path.isdir(path.partition("/")[0])


@cache
def fetch_set(path: str) -> str:
    """The folder of a data set, fetched unless it is in the cache. Raises: DataError, why the hub did not."""
    import huggingface_hub

    named = HUB_ID.fullmatch(path)
    assert named is not None
    try:
        return huggingface_hub.snapshot_download(
            named["name"], repo_type="dataset", revision=named["revision"], ignore_patterns=list(NOT_DATA)
        )
    except Exception as error:  # a network fails in more ways than one can list
        said = quoted(next(iter(str(error).splitlines()), type(error).__name__))
        raise DataError(
            f"{path}: no such file or folder here, and the hub did not give a data set of that id ({said}); check the"
            " name, or without a network give a folder"
        ) from error
