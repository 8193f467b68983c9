"""Slabs of slots in powers of two (buddy allocation): neighbours that are both free join again."""

from __future__ import annotations

from bisect import bisect_left, insort


class SlabAllocator:
    """Hands out ranges of `total` slots. A slab of size s begins at a multiple of s.

    Of the smallest free slabs that fit, the lowest is taken, and halved where it is too large.
    """

    def __init__(self, total: int, smallest: int = 64) -> None:
        """total: slots, of which a rest below `smallest` is not used."""
        self.smallest = smallest
        self.total = total - total % smallest
        self.used = 0
        self._free: dict[int, list[int]] = {}
        start = 0
        while start < self.total:
            size = smallest << ((self.total - start) // smallest).bit_length() - 1
            self._free[size] = [start]
            start += size
        self.largest = max(self._free, default=0)
        """Slots of the largest slab."""

    def size_for(self, slots: int) -> int:
        """Size of the slab that holds so many slots."""
        return self.smallest << (-(-slots // self.smallest) - 1).bit_length()

    def take(self, slots: int) -> int | None:
        """First slot of a new slab for so many slots; None if no free one is large enough."""
        size = wanted = self.size_for(slots)
        while size <= self.largest and not self._free.get(size):
            size *= 2
        if size > self.largest:
            return None
        start = self._free[size].pop(0)
        while size > wanted:
            size //= 2
            insort(self._free.setdefault(size, []), start + size)
        self.used += wanted
        return start

    def give(self, start: int, size: int) -> None:
        """Take back a slab."""
        self.used -= size
        while self._pop(start ^ size, size):
            start, size = min(start, start ^ size), 2 * size
        insort(self._free.setdefault(size, []), start)

    def extend(self, start: int, size: int) -> bool:
        """Double a slab in its place, if its upper neighbour is free."""
        if start & size or not self._pop(start + size, size):
            return False
        self.used += size
        return True

    def _pop(self, start: int, size: int) -> bool:
        """Take the free slab that begins at `start` off the list, if there is one of this size."""
        free = self._free.get(size, [])
        at = bisect_left(free, start)
        found = at < len(free) and free[at] == start
        if found:
            del free[at]
        return found
