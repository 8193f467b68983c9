"""BLEU-4 of a corpus (Papineni et al. 2002), as the COCO captioning evaluation computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lorgnette.eval.metrics.metric import Floats

N = 4
TINY, SMALL = 1e-15, 1e-9
"""Added above and below each fraction, as published, so that an empty text scores 0 and not an error."""


def ngrams(words: Sequence[str], longest: int = N) -> Counter[tuple[str, ...]]:
    """Count n-grams of 1 to `longest` words."""
    runs = (words[start : start + size] for size in range(1, longest + 1) for start in range(len(words) - size + 1))
    return Counter(map(tuple, runs))


def bleu_counts(answer: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Counts of one example: matched n-grams, n-grams (n = 1 to 4 each), length, length of the nearest reference."""
    given, allowed = ngrams(answer), Counter[tuple[str, ...]]()
    for reference in references:
        allowed |= ngrams(reference)
    matched = [0] * N
    for ngram, count in (given & allowed).items():
        matched[len(ngram) - 1] += count
    nearest = min((len(reference) for reference in references), key=lambda n: (abs(n - len(answer)), n), default=0)
    return [*matched, *(max(0, len(answer) - n) for n in range(N)), len(answer), nearest]


def bleu_4(sums: Floats) -> Floats:
    """BLEU-4 of summed counts: geometric mean of the precisions, less where the answers are shorter than references."""
    precisions = (sums[..., :N] + TINY) / (sums[..., N : 2 * N] + SMALL)
    ratio = (sums[..., 2 * N] + TINY) / (sums[..., 2 * N + 1] + SMALL)
    score: Floats = precisions.prod(axis=-1) ** (1 / N) * np.exp(np.minimum(0, 1 - 1 / ratio))
    return score
