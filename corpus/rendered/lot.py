"""Chance for one row, within one split.

Whatever identifies a text (a person, a shop, a sentence, the words of a sign, the title of a table) belongs to one
split by the hash of what it says. A row draws until it has one of its own split, so none is seen in two of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.errors import DataError

Thing = TypeVar("Thing")

IN_TEST, IN_VALIDATION = 15, 5
"""Per cent of all identities that belong to these splits."""
MOST_DRAWS = 2000


def plain(identity: str) -> str:
    """A text as it is compared with others: capitals and spaces make no difference."""
    return " ".join(identity.lower().split())


def split_of(identity: str) -> str:
    """The split that a text belongs to."""
    place = int.from_bytes(hashlib.sha256(f"rendered {plain(identity)}".encode()).digest()[:8], "big") % 100
    if place < IN_TEST:
        return "test"
    return "validation" if place < IN_TEST + IN_VALIDATION else "train"


class Lot:
    """A stream of random numbers that depends on a name, the split, the seed and the number of the row only.

    It remembers what was drawn of the split: the `origin` of the row that is made with it.
    """

    def __init__(self, name: str, split: str, index: int, seed: int) -> None:
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
        self.split = split
        self._random = random.Random(f"rendered {name} {split} {seed} {index}")
        self._drawn: list[str] = []

    @property
    def origin(self) -> list[str]:
        """Names of the things in a row, each once, in order."""
        return sorted(set(self._drawn))

    def between(self, least: int, most: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(least, most)

    def chance(self, per_cent: int) -> bool:
        return self._random.randrange(100) < per_cent

    def one(self, things: Sequence[Thing]) -> Thing:
        return self._random.choice(things)

    def some(self, things: Sequence[Thing], count: int) -> list[Thing]:
        """Different ones, in random order."""
        return self._random.sample(list(things), count)

    def draw(self, make: Callable[[], Thing], identity: Callable[[Thing], str] = str) -> Thing:
        """Draw from `make` until the result's identity belongs to this split.

        Raises: DataError if nothing of the split comes up.
        """
        before = len(self._drawn)
        for _ in range(MOST_DRAWS):
            del self._drawn[before:]
            made = make()
            if split_of(identity(made)) == self.split:
                self._drawn.append(plain(identity(made)))
                return made
        raise DataError(f"none of {MOST_DRAWS} draws belongs to split {self.split}, the last one was {made!r:.80}")

    def apart(self, makes: Sequence[Callable[[], str]]) -> list[str]:
        """Draw from each maker, no two results equal."""
        made: list[str] = []
        for make in makes:
            made.append(make())
            while made[-1] in made[:-1]:
                made[-1] = make()
        return made
