"""Packing: many lengths into few packs of bounded tokens and patches, best fit first."""

from __future__ import annotations

import numpy as np

from lorgnette.data.config import PackConfig

CLASSES = 8
"""Packs are kept apart by the patches that still fit in them, in this many steps."""


def pack_lengths(tokens: np.ndarray, patches: np.ndarray, limits: PackConfig) -> list[list[int]]:
    """Items by pack: each item in one pack, no pack beyond any limit. Depends on nothing but the arguments.

    The largest item (by the limit it uses most) goes first, into the pack that it leaves the least room for tokens in,
    among those that are known to have room for its patches. Where the limits give a number of samples, items stay in
    their order instead, so that every pack is a sample of the mixture.
    Raises: ValueError if an item exceeds a limit alone.
    """
    if len(tokens) and (tokens.max() > limits.tokens or patches.max() > limits.patches):
        raise ValueError("an item is larger than a pack: cut it in pieces first")
    if limits.samples is not None:
        return _in_order(tokens.tolist(), patches.tolist(), limits, limits.samples)
    order = np.argsort(-np.maximum(tokens / limits.tokens, patches / limits.patches), kind="stable")
    packs: list[list[int]] = []
    shelf = _Shelf(limits)
    items = zip(order.tolist(), tokens[order].tolist(), patches[order].tolist(), strict=True)
    for item, needed, needed_patches in items:
        pack, room, room_patches = shelf.take(needed, needed_patches) or (len(packs), limits.tokens, limits.patches)
        if pack == len(packs):
            packs.append([])
        packs[pack].append(item)
        shelf.put(pack, room - needed, room_patches - needed_patches)
    return packs


def _in_order(tokens: list[int], patches: list[int], limits: PackConfig, samples: int) -> list[list[int]]:
    """Runs of `samples` items; a run ends before an item that would pass another limit."""
    packs: list[list[int]] = []
    room = room_patches = 0
    for item, (needed, needed_patches) in enumerate(zip(tokens, patches, strict=True)):
        if not packs or len(packs[-1]) == samples or needed > room or needed_patches > room_patches:
            packs.append([])
            room, room_patches = limits.tokens, limits.patches
        packs[-1].append(item)
        room, room_patches = room - needed, room_patches - needed_patches
    return packs


class _Shelf:
    """Packs by the room that they have. The least room that is enough is found by arithmetic, without a search."""

    def __init__(self, limits: PackConfig) -> None:
        self.step = -(-limits.patches // CLASSES)
        classes = limits.patches // self.step + 1
        self.open = [0] * classes
        """For each class of room for patches: bit r is set while a pack of it has room for exactly r tokens."""
        self.packs: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(classes)]
        """For each class and room for tokens: the packs, with their exact room for patches."""

    def put(self, pack: int, room: int, room_patches: int) -> None:
        number = room_patches // self.step
        self.packs[number].setdefault(room, []).append((pack, room_patches))
        self.open[number] |= 1 << room

    def take(self, needed: int, needed_patches: int) -> tuple[int, int, int] | None:
        """(pack, its room for tokens, its room for patches), taken off the shelf; None if no pack will do."""
        least, found = 0, -1
        for number in range(-(-needed_patches // self.step), len(self.open)):
            left = self.open[number] >> needed
            if left:
                lowest = left & -left
                if found < 0 or lowest < least:
                    least, found = lowest, number
                    if lowest == 1:
                        break
        if found < 0:
            return None
        room = needed + least.bit_length() - 1
        packs = self.packs[found][room]
        pack, room_patches = packs.pop()
        if not packs:
            self.open[found] ^= 1 << room
        return pack, room, room_patches
