"""Seeds of random generators: one derivation for all.

What is drawn depends on the run's seed and on the names or the content of what it is drawn for, never on the order of
calls, the rank or the folder. The data plan draws whole arrays at once from places that are numbers: its twin of this
module is `hashed` in `data/plan/augment.py`.
"""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str | bytes | tuple[int, ...]) -> int:
    """63 bits of SHA-256 over the parts with their types, which torch, numpy and `random` all take as a seed."""
    digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") >> 1
