"""Packing: many lengths into few packs of bounded tokens and patches, best fit first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lorgnette.data.config import PackConfig

TRIES = 16
"""Packs with room for the tokens that are tried for the patches too, before a new pack is opened."""


def pack_lengths(tokens: np.ndarray, patches: np.ndarray, limits: PackConfig) -> list[list[int]]:
    """Items by pack: each item in one pack, no pack beyond either limit. Depends on nothing but the arguments.

    The largest item (by the limit it uses most) goes first, into the pack that it leaves the least room for tokens in.
    Raises: ValueError if an item exceeds a limit alone.
    """
    if len(tokens) and (tokens.max() > limits.tokens or patches.max() > limits.patches):
        raise ValueError("an item is larger than a pack: cut it in pieces first")
    size = np.maximum(tokens / limits.tokens, patches / limits.patches)
    order = np.argsort(-size, kind="stable")
    packs: list[list[int]] = []
    rooms: list[int] = []  # patches that still fit in each pack
    by_room: list[list[int]] = [[] for _ in range(limits.tokens + 1)]  # packs by the tokens that still fit
    open_rooms = 0  # bit r is set while a pack has room for exactly r tokens: the next is found without a search
    items = zip(order.tolist(), tokens[order].tolist(), patches[order].tolist(), strict=True)
    for item, needed, needed_patches in items:
        room, place = _best(open_rooms, by_room, rooms, needed, needed_patches)
        if room < 0:
            room, place, pack = limits.tokens, -1, len(packs)
            packs.append([item])
            rooms.append(limits.patches - needed_patches)
        else:
            pack = by_room[room].pop(place)
            if not by_room[room]:
                open_rooms ^= 1 << room
            packs[pack].append(item)
            rooms[pack] -= needed_patches
        by_room[room - needed].append(pack)
        open_rooms |= 1 << (room - needed)
    return packs


def _best(
    open_rooms: int, by_room: Sequence[Sequence[int]], rooms: Sequence[int], needed: int, needed_patches: int
) -> tuple[int, int]:
    """The least room that is enough, and the place among packs with that room; (-1, -1) if no pack will do."""
    left, tries, room = open_rooms >> needed, 0, needed
    while left:
        skip = (left & -left).bit_length() - 1
        room += skip
        for place in range(len(by_room[room]) - 1, -1, -1):
            if rooms[by_room[room][place]] >= needed_patches:
                return room, place
            tries += 1
            if tries >= TRIES:
                return -1, -1
        left, room = left >> (skip + 1), room + 1
    return -1, -1
