"""`SampleRef`: one sample of a run as the plan names it, and digests of what a step trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class SampleRef(NamedTuple):
    """One sample of the run: which source, which of its records, and how often it was gone through before."""

    source: int
    record: int
    epoch: int
    start: int
    """The first of the record's units that the sample holds."""
    end: int
    """The end of its units (not included)."""

    def __str__(self) -> str:
        """As it stands in a digest."""
        return ",".join(map(str, self))


def digest_of(refs: Iterable[str]) -> str:
    """Sixteen hex digits that name what a step trains on: the same in whatever order and packs its samples stand.

    refs: `str` of each sample. The digest is the sum of their hashes, so that ranks can add theirs; see `joined`.
    """
    hashes = (hashlib.sha256(ref.encode()).digest()[:8] for ref in refs)
    return f"{sum(int.from_bytes(one) for one in hashes) % 2**64:016x}"


def joined(digests: Iterable[str]) -> str:
    """The digest of a step from those of its parts, one from each rank."""
    return f"{sum(int(one, 16) for one in digests) % 2**64:016x}"
