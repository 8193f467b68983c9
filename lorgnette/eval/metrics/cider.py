"""CIDEr-D (Vedantam et al. 2015), as the COCO captioning evaluation computes it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lorgnette.eval.metrics.bleu import N, ngrams

SIGMA = 6.0
"""Width, in words, of the penalty for another length than the reference's."""

Vector = dict[tuple[str, ...], float]


def cider_d(answers: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[float]:
    """The score of each answer, 0 to 10, both sides given as words. It depends on all references of the corpus.

    For n = 1 to 4: n-grams weigh as often as they occur times log(examples / examples whose references have them), and
    the cosine with each reference is taken, clipped to the reference's weights. The mean over n and references counts
    ten times. A corpus of one example scores 0: every n-gram is in all of it.
    """
    frequency = Counter(ngram for texts in references for ngram in set().union(*map(ngrams, texts)))
    corpus = math.log(max(1, len(references)))

    def vectors(words: Sequence[str]) -> tuple[list[Vector], list[float], int]:
        weights: list[Vector] = [{} for _ in range(N)]
        for ngram, count in ngrams(words).items():
            weights[len(ngram) - 1][ngram] = count * (corpus - math.log(max(1, frequency[ngram])))
        norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in weights]
        return weights, norms, max(0, len(words) - 1)  # as published, the length is the number of word pairs

    def similarity(answer: Sequence[str], reference: Sequence[str]) -> float:
        (given, given_norms, length), (wanted, wanted_norms, other) = vectors(answer), vectors(reference)
        norms = [a * b for a, b in zip(given_norms, wanted_norms, strict=True)]
        cosines = 0.0
        for mine, theirs, norm in zip(given, wanted, norms, strict=True):
            if norm:
                cosines += sum(min(mine[ngram], theirs[ngram]) * theirs[ngram] for ngram in mine.keys() & theirs) / norm
        return cosines / N * math.exp(-((length - other) ** 2) / (2 * SIGMA**2))

    return [
        10 * sum(similarity(answer, text) for text in texts) / max(1, len(texts))
        for answer, texts in zip(answers, references, strict=True)
    ]
