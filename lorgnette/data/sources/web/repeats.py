"""Boilerplate detection: counts blocks that many pages of a site share, in memory of a fixed size."""

from __future__ import annotations

import hashlib

import numpy as np

SLOTS = 2**25


def key_of(*parts: str) -> int:
    """A number of 64 bits for texts; the case of letters and the kind of white space make no difference."""
    text = "\x00".join(" ".join(part.lower().split()) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class RepeatCounter:
    """Counts of keys, up to 65,535. Two keys may share a slot, so a count may be too high, but never too low.

    A key has two slots, and the smaller count holds. With as many different keys as there are slots, of those seen once
    seven in a hundred seem to be seen three times; with a quarter as many, seven in ten thousand.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self.slots = slots
        self._counts = np.zeros((2, slots), np.uint16)

    def add(self, key: int) -> None:
        for half, place in enumerate(self._places(key)):
            if self._counts[half, place] < 65_535:
                self._counts[half, place] += 1

    def __getitem__(self, key: int) -> int:
        first, second = self._places(key)
        return int(min(self._counts[0, first], self._counts[1, second]))

    def _places(self, key: int) -> tuple[int, int]:
        return (key & 0xFFFFFFFF) % self.slots, (key >> 32) % self.slots
