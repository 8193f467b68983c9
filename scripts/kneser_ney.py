"""Interpolated Kneser-Ney n-gram model of tokens (Ney et al., 1994): what a language model has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class Counts:
    """Counts of distinct n-grams, each packed into one integer, and of what follows each context."""

    keys: Keys
    counts: NDArray[np.int64]
    contexts: Keys
    totals: NDArray[np.int64]
    """Sum of the counts of what follows a context."""
    types: NDArray[np.int64]
    """Distinct tokens that follow it."""

    @classmethod
    def of(cls, keys: Keys, counts: NDArray[np.int64], bits: int) -> Counts:
        """keys: sorted, each once. bits: of a token."""
        contexts, first, types = np.unique(keys >> np.uint64(bits), return_index=True, return_counts=True)
        return cls(keys, counts, contexts, np.add.reduceat(counts, first), types)

    @property
    def discount(self) -> float:
        """Subtracted from every count: n1 / (n1 + 2 n2), of the n-grams counted once and twice."""
        once, twice = (int((self.counts == times).sum()) for times in (1, 2))
        return once / (once + 2 * twice) if once else 0.5


class KneserNey:
    """Probabilities of tokens after the `order - 1` before them.

    The longest n-grams are counted as they stand; a shorter one counts the distinct tokens that it was seen after. The
    probability of each order is its discounted count, and the mass so freed is the next shorter order's; the shortest's
    is shared equally by all tokens, so that probabilities sum to one after any context.
    """

    def __init__(self, texts: Iterable[Sequence[int]], vocabulary: int, *, order: int = 5, start: int = 0) -> None:
        """texts: token ids below `vocabulary`, each with its end. start: the token that stands before a text.

        Raises: ValueError if an n-gram of so many ids does not fit in 64 bits.
        """
        self.vocabulary, self.order, self.start = vocabulary, order, start
        self.bits = max(1, (vocabulary - 1).bit_length())
        if self.bits * order > 64:
            raise ValueError(f"{order}-grams of {vocabulary} tokens need more than 64 bits; lower the order")
        keys, counts = np.unique(self._packed(texts), return_counts=True)
        self.orders = [Counts.of(keys, counts, self.bits)]
        for length in range(order - 1, 0, -1):
            keys, counts = np.unique(self._last(keys, length), return_counts=True)
            self.orders.insert(0, Counts.of(keys, counts, self.bits))

    def _packed(self, texts: Iterable[Sequence[int]]) -> Keys:
        """The n-gram that ends in each token of the texts, the last token in the lowest bits."""
        before = [self.start] * (self.order - 1)
        rows = [np.array([*before, *text], dtype=np.uint64) for text in texts]
        windows = [np.lib.stride_tricks.sliding_window_view(row, self.order) for row in rows if len(row) >= self.order]
        shifts = np.arange(self.order - 1, -1, -1, dtype=np.uint64) * np.uint64(self.bits)
        return np.concatenate([(window << shifts).sum(1, dtype=np.uint64) for window in windows])

    def _last(self, keys: Keys, length: int) -> Keys:
        """The last tokens of n-grams."""
        return keys & np.uint64((1 << self.bits * length) - 1)

    def probabilities(self, texts: Iterable[Sequence[int]]) -> NDArray[np.float64]:
        """The probability of each token of the texts, end to end."""
        packed = self._packed(texts)
        found = np.full(len(packed), 1 / self.vocabulary)
        for length, order in enumerate(self.orders, 1):
            keys = self._last(packed, length)
            counts = _looked_up(order.keys, order.counts, keys)
            contexts = keys >> np.uint64(self.bits)
            totals, types = (_looked_up(order.contexts, values, contexts) for values in (order.totals, order.types))
            mixed = np.maximum(counts - order.discount, 0) + order.discount * types * found
            found = np.where(totals > 0, mixed / np.maximum(totals, 1), found)
        return found


def _looked_up(keys: Keys, values: NDArray[np.int64], wanted: Keys) -> NDArray[np.int64]:
    """The value of each wanted key, 0 where there is none. keys: sorted."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
