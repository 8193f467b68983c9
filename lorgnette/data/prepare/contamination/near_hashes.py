"""Hashes that differ in few bits, found among millions without comparing all with all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

BANDS, BAND_BITS = 4, 16
"""A hash of 64 bits is cut in four numbers. Where two hashes differ in at most seven bits, one of these numbers differs
in at most one, so it is enough to look up each number, and those one bit away from it, in a table."""
FURTHEST = 2 * BANDS - 1
_BLOCK = 1 << 16
"""Queries that are looked up together."""


def near_pairs(query_Q: np.ndarray, known_K: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair (query, known) whose hashes differ in at most `most` bits, by their places (int64), in order.

    Raises: ValueError for more bits than the table finds.
    """
    if not 0 <= most <= FURTHEST:
        raise ValueError(f"hashes that differ in up to {most} bits cannot be found; the most is {FURTHEST}")
    queries, query_of = np.unique(query_Q, return_inverse=True)
    known, known_of = np.unique(known_K, return_inverse=True)
    pairs = [np.empty(0, np.int64), *_distinct(queries, known, most)]
    found = np.unique(np.concatenate(pairs))
    left, right = np.divmod(found, max(1, len(known)))
    # from distinct hashes to all that have them
    by_query, by_known = np.argsort(query_of, kind="stable"), np.argsort(known_of, kind="stable")
    query_starts = np.searchsorted(query_of[by_query], np.arange(len(queries) + 1))
    known_starts = np.searchsorted(known_of[by_known], np.arange(len(known) + 1))
    many_left, many_right = np.diff(query_starts)[left], np.diff(known_starts)[right]
    each = many_left * many_right
    pair = np.repeat(np.arange(len(each)), each)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(each) - each, each)
    first = by_query[query_starts[left][pair] + within // many_right[pair]]
    second = by_known[known_starts[right][pair] + within % many_right[pair]]
    order = np.lexsort((second, first))
    return first[order], second[order]


def _distinct(queries: np.ndarray, known: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Pairs of distinct hashes as numbers `query * len(known) + known`; some of them more than once."""
    flips = [0, *(1 << bit for bit in range(BAND_BITS))]
    for band in range(BANDS):
        shift = np.uint64(band * BAND_BITS)
        keys = _band(known, shift)
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(2**BAND_BITS + 1))
        for block, flip in itertools.product(range(0, len(queries), _BLOCK), flips):
            some = queries[block : block + _BLOCK]
            wanted = _band(some, shift) ^ flip
            counts = starts[wanted + 1] - starts[wanted]
            query = np.repeat(np.arange(len(some)), counts)
            within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
            candidate = order[starts[wanted][query] + within]
            close = np.bitwise_count(some[query] ^ known[candidate]) <= most
            yield (query[close] + block) * len(known) + candidate[close]


def _band(hashes: np.ndarray, shift: np.uint64) -> np.ndarray:
    return ((hashes >> shift) & np.uint64(2**BAND_BITS - 1)).astype(np.int64)
