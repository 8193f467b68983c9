"""CIDEr-D (Vedantam et al. 2015), as the COCO captioning evaluation computes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lorgnette.eval.metrics.bleu import N, ngrams

SIGMA = 6.0
"""Width, in words, of the penalty for another length than the reference's."""

Vector = dict[tuple[str, ...], float]
Weighed = tuple[list[Vector], list[float], int]
"""A text's weights and their norms for n = 1 to 4, and its length."""


def cider_d(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """The score of each answer, 0 to 10, both sides given as words. It depends on all references of the corpus.

    For n = 1 to 4: n-grams weigh as often as they occur times log(examples / examples whose references have them), and
    the cosine with each reference is taken, clipped to the reference's weights. The mean over n and references counts
    ten times. A corpus of one example scores 0: every n-gram is in all of it.
    """
    frequency = Counter(ngram for texts in references for ngram in set().union(*map(ngrams, texts)))
    corpus = math.log(max(1, len(references)))
    rarity = {ngram: corpus - math.log(count) for ngram, count in frequency.items()}

    def weigh(words: Sequence[str]) -> Weighed:
        vectors: list[Vector] = [{} for _ in range(N)]
        for ngram, count in ngrams(words).items():
            vectors[len(ngram) - 1][ngram] = count * rarity.get(ngram, corpus)
        norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in vectors]
        return vectors, norms, max(0, len(words) - 1)  # as published, the length is the number of word pairs

    scores = []
    for answer, texts in zip(answers, references, strict=True):
        given = weigh(answer)
        scores.append(10 * sum(_similarity(given, weigh(text)) for text in texts) / max(1, len(texts)))
    return scores


def _similarity(given: Weighed, wanted: Weighed) -> float:
    cosines = 0.0
    for mine, theirs, norm, other in zip(given[0], wanted[0], given[1], wanted[1], strict=True):
        if norm and other:
            shared = mine.keys() & theirs.keys()
            cosines += sum(min(mine[ngram], theirs[ngram]) * theirs[ngram] for ngram in shared) / (norm * other)
    return cosines / N * math.exp(-((given[2] - wanted[2]) ** 2) / (2 * SIGMA**2))
