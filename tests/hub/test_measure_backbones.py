"""Measures of the shipped backbones: the n-gram model against counting by hand, probes, retrieval, and the page."""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"

TEXTS = [[1, 2, 3, 1, 2, 0], [1, 2, 1, 3, 0], [4, 1, 2, 3, 0], [1, 0], [3, 3, 3, 1, 2, 4, 0]]


@pytest.fixture(scope="module")
def script() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    try:
        import measure_backbones

        yield measure_backbones
    finally:
        sys.path.remove(str(SCRIPTS))


def test_probabilities_after_any_context_sum_to_one(script):
    model = script.KneserNey(TEXTS, 6, order=3)
    for context in itertools.product(range(6), repeat=2):  # 5 was never seen
        assert sum(model.probabilities([[*context, token]])[-1] for token in range(6)) == pytest.approx(1)


def by_hand(texts, vocabulary, order):
    """The same model as one reads it: dictionaries of tuples, and recursion over the orders."""
    grams = Counter(
        tuple(([0] * (order - 1) + text)[place : place + order]) for text in texts for place in range(len(text))
    )
    counts = {order: grams}
    for length in range(order - 1, 0, -1):
        counts[length] = Counter(gram[1:] for gram in counts[length + 1])
    following = defaultdict(Counter)
    for grams in counts.values():
        for gram, count in grams.items():
            following[len(gram), gram[:-1]][gram[-1]] += count

    def discount(length):
        once, twice = (list(counts[length].values()).count(times) for times in (1, 2))
        return once / (once + 2 * twice) if once else 0.5

    def probability(gram):
        if not gram:
            return 1 / vocabulary
        seen, shorter = following[len(gram), gram[:-1]], probability(gram[1:])
        if not seen:
            return shorter
        off = discount(len(gram))
        return (max(seen[gram[-1]] - off, 0) + off * len(seen) * shorter) / seen.total()

    return probability


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_n_gram_model_is_the_one_counted_by_hand(script, order):
    model, slow = script.KneserNey(TEXTS, 6, order=order), by_hand(TEXTS, 6, order)
    held_out = [[1, 2, 3, 5, 0], [2, 2, 1, 2, 3, 3, 0]]
    padded = [[0] * (order - 1) + text for text in held_out]
    wanted = [slow(tuple(row[place : place + order])) for row in padded for place in range(len(row) - order + 1)]
    assert np.allclose(model.probabilities(held_out), wanted)


def test_n_grams_that_do_not_fit_are_refused(script):
    with pytest.raises(ValueError, match="5-grams of 100000 tokens need more than 64 bits"):
        script.KneserNey(TEXTS, 100_000)


def test_a_probe_reads_what_is_linear_and_only_that(script):
    generator = torch.Generator().manual_seed(0)
    rows = {
        split: torch.randn(count, 8, generator=generator)
        for split, count in (("train", 300), ("validation", 60), ("test", 200))
    }
    features = script.Features(rows)
    linear = {
        split: [None if n % 5 == 0 else ("a", "b")[int(x[0] > x[1])] for n, x in enumerate(some)]
        for split, some in rows.items()
    }
    parity = {split: [("a", "b")[int((x > 0).sum()) % 2] for x in some] for split, some in rows.items()}
    assert script.accuracy_of_probe(features, linear)[0] > 0.95
    right, guess = script.accuracy_of_probe(features, parity)
    assert right < 0.65 and 0.35 < guess < 0.65


def test_a_map_finds_captions_in_features_that_hold_their_words(script, monkeypatch):
    """Features that are the words of the captions, turned, find them; features of noise do not."""
    rng, words = random.Random(0), ["red", "blue", "small", "large", "cat", "dog", "boat", "house", "tree", "car"]
    texts = {
        split: [" ".join(rng.sample(words, 4)) for _ in range(count)]
        for split, count in (("train", 400), ("validation", 50), ("test", 50))
    }
    monkeypatch.setattr(script, "captions_of", texts.get)
    vectors = script.word_vectors(texts)
    turn = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))[0]
    right, guess = script.retrieval_of_map(script.Features({split: rows @ turn for split, rows in vectors.items()}))
    assert right > 0.8 > 0.1 > guess
    noise = script.Features(
        {split: torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)) for split, rows in vectors.items()}
    )
    assert script.retrieval_of_map(noise)[0] < 0.2


def test_words_are_whole_and_typefaces_of_one_split_alone(script):
    faces = list(script.TYPEFACES.values())
    assert len(script.WORDS) == 20 and not any(set(a) & set(b) for a, b in itertools.combinations(faces, 2))
    for face in itertools.chain(*faces):
        picture = np.asarray(script.word_picture(random.Random(face), "September", face).convert("L")).astype(int)
        edges = np.concatenate([picture[[0, -1]].ravel(), picture[:, [0, -1]].ravel()])
        assert np.ptp(picture) > 100 and np.ptp(edges) == 0, "nothing is cut off"
