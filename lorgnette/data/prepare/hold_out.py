"""Rows that are held out from training, grouped by the contents of their pictures so that no picture is on both sides.

The choice is a file of keys, one a line: the hash of a picture's bytes as an index has it, or of the place of a row
without pictures. `lorgnette tune` writes it, and sources name it in `held_out`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from lorgnette.data.index import Index
from lorgnette.data.sources.reading.shards import read_bytes
from lorgnette.errors import DataError
from lorgnette.seeds import derive_seed
from lorgnette.untrusted import quoted

KEYS_HEADER = "# pictures that lorgnette tune holds out from training, by their hashes"
MOST_HELD_OUT = 1000
"""Rows: each is asked about three times, and more would narrow the intervals little."""
_KEY = re.compile(r"[0-9a-f]{16}")


def keys_of(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Keys (uint64), and the record of each (int64): one for each picture, and one for a record without any."""
    alone = np.flatnonzero(index.images_E == 0)
    at = zip(*(array[alone].tolist() for array in (index.shard_E, index.group_E, index.row_E)), strict=True)
    places = [derive_seed("row without pictures", place) for place in at]
    keys = np.concatenate([index.sha_I, np.array(places, dtype=np.uint64)])
    return keys, np.concatenate([index.record_of_image(), alone])


def is_held_out(index: Index, held: np.ndarray) -> np.ndarray:
    """Mask of the records that have a key among those that are held out (bool, over E)."""
    keys, owners = keys_of(index)
    found_E = np.zeros(len(index), bool)
    found_E[owners[np.isin(keys, held)]] = True
    return found_E


def choose_held_out(indexes: Sequence[Index], share: float, seed: int = 0) -> list[int]:
    """Keys of the records to hold out: about `share` of all, in whole groups, and at least two groups.

    Records that share a picture, in one source or in several, are one group. The choice depends on the pictures and
    the seed alone, not on names of files. At most `MOST_HELD_OUT` records, unless the first two groups are larger.
    Raises: DataError if there are fewer than four groups: nothing could be trained on and measured.
    """
    groups = _groups(indexes)
    if len(groups) < 4:
        raise DataError(
            f"the rows are {len(groups)} groups that share no picture, and at least 4 are needed to train on some and"
            " hold out others; give more pictures, or train without a held-out part by `lorgnette train`"
        )
    total = sum(count for count, _ in groups)
    wanted = min(MOST_HELD_OUT, max(2, round(share * total)))
    order = sorted(groups, key=lambda group: derive_seed("held out", seed, min(group[1])))
    chosen: list[int] = []
    rows = taken = 0
    for count, keys in order:
        if rows >= wanted and taken >= 2:
            break
        if count > max(1, total // 4):  # a picture that most rows show stays on the side of training
            continue
        chosen += keys
        rows, taken = rows + count, taken + 1
    if taken < 2:
        raise DataError(
            "most rows show the same pictures, so that no two groups of rows can be held out; give more pictures, or"
            " train without a held-out part by `lorgnette train`"
        )
    return sorted(chosen)


def _groups(indexes: Sequence[Index]) -> list[tuple[int, list[int]]]:
    """Records that share keys, joined: the number of records and the keys of each group."""
    parent: dict[int, int] = {}

    def root(key: int) -> int:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    firsts: list[int] = []
    for index in indexes:
        keys, owners = keys_of(index)
        first: dict[int, int] = {}
        for key, owner in zip(keys.tolist(), owners.tolist(), strict=True):
            parent.setdefault(key, key)
            parent[root(key)] = root(first.setdefault(owner, key))
        firsts += first.values()
    members: dict[int, list[int]] = defaultdict(list)
    for key in parent:
        members[root(key)].append(key)
    counts: dict[int, int] = defaultdict(int)
    for key in firsts:
        counts[root(key)] += 1
    return [(counts[top], keys) for top, keys in members.items()]


def keys_text(keys: Iterable[int]) -> str:
    """The content of a file of keys."""
    return "\n".join([KEYS_HEADER, *(f"{key:016x}" for key in keys)]) + "\n"


def is_keys_file(content: bytes) -> bool:
    """Return whether a file is one of keys."""
    return content.startswith(KEYS_HEADER.encode())


def read_keys(path: str) -> np.ndarray:
    """Keys in a file (uint64). Raises: DataError naming the line that is none."""
    keys = []
    for number, line in enumerate(read_bytes(path).decode("utf-8", errors="replace").splitlines(), 1):
        if _KEY.fullmatch(line):
            keys.append(int(line, 16))
        elif line and not line.startswith("#"):
            raise DataError(f"{path}, line {number}: {quoted(line, 60)!r} is no key of a picture, 16 hex digits")
    return np.array(keys, dtype=np.uint64)
