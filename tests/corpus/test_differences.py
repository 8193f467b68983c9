"""Pairs of scenes differ in the one thing that is said, and captions of a scene name all that it shows."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from corpus.drawn.cast import cast
from corpus.drawn.differences import CHANGES, changed
from corpus.drawn.telling import captions
from tests.corpus.test_scenes_by_name import plays


@pytest.mark.parametrize("change", CHANGES)
def test_the_change_is_the_only_difference_of_the_pictures(change):
    players = cast("test", 0, "test")
    for turn in range(6):
        number = turn * len(CHANGES) + CHANGES.index(change)
        before, after, one = changed(players, random.Random(f"test {number}"), number)
        assert one.kind == change
        first, second = (np.asarray(play.draw(), dtype=int) for play in (before, after))
        assert first.shape == second.shape
        boxes = {thing.box for play in (before, after) for thing in play.things}
        kept = {thing.box for thing in before.things} & {thing.box for thing in after.things}
        differs = np.abs(first - second).max(axis=2) > 0
        assert bool(differs.any()) == (change != "same")
        mask = np.zeros(differs.shape, dtype=bool)
        for left, top, right, bottom in boxes - kept if change != "swapped" else boxes:
            mask[top:bottom, left:right] = True
        assert not differs[~mask | (change == "same")].any()
        names = (Counter(before.nouns), Counter(after.nouns))
        assert (names[0] == names[1]) == (change in ("moved", "swapped", "same"))


def test_the_sentence_names_the_change():
    players = cast("test", 0, "test")
    for number in range(24):
        before, after, one = changed(players, random.Random(f"test {number}"), number)
        for said in one.wording.said:
            text = said.format(**one.filled)
            for name in set(before.nouns) ^ set(after.nouns):
                assert name.lower() in text.lower()


def test_references_of_a_scene_differ_and_name_its_things():
    for rng, _, play in plays():
        said = captions(play, rng)
        assert len(set(said)) == 5
        for text in said:
            assert all(name.lower() in text.lower() for name in play.nouns) and text[-1] == "." and text[0].isupper()
