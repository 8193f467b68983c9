"""Labels: every name leads to a drawing, and things are spoken of in English."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from corpus.drawn.labels import (
    FILE,
    a,
    be,
    coloured,
    countable,
    labelled,
    labels,
    listed,
    plural,
    sentence,
    the,
)
from lorgnette.data.builtin.drawings import SPLITS, drawings

NOUNS = sorted({label.noun for label in labels().values()})


def test_every_label_is_of_a_drawing_and_no_drawing_has_two():
    ids = {row.id for split in SPLITS for row in drawings(split)}
    with open(FILE, encoding="utf-8") as lines:
        listed_ids = [name for line in list(lines)[1:] for name in line.split("\t")[2].split()]
    assert set(listed_ids) <= ids
    assert [name for name, count in Counter(listed_ids).items() if count > 1] == []
    assert len(listed_ids) == len(labels()) > 1300


def test_a_noun_is_of_one_family_and_every_split_has_many():
    families = defaultdict(set)
    for label in labels().values():
        families[label.noun].add(label.family)
    assert all(len(names) == 1 for names in families.values())
    assert {split: len(labelled(drawings(split))) > 100 for split in SPLITS} == dict.fromkeys(SPLITS, True)


@pytest.mark.parametrize(
    ("noun", "colour", "said"),
    [
        ("apple", None, "an apple"),
        ("apple", "red", "a red apple"),
        ("car", "orange", "an orange car"),
        ("cat", "black", "a cat"),
        ("USB stick", None, "a USB stick"),
        ("hourglass", None, "an hourglass"),
        ("grapes", "green", "green grapes"),
        ("bacon", None, "bacon"),
        ("sun", "yellow", "the sun"),
        ("flag of Brazil", "green", "the flag of Brazil"),
        ("ten of hearts", "red", "the ten of hearts"),
        ("cup of coffee", "brown", "a brown cup of coffee"),
        ("map of Spain", None, "a map of Spain"),
    ],
)
def test_things_are_spoken_of_as_people_do(noun, colour, said):
    assert a(noun, colour) == said


def test_plurals_lists_and_sentences():
    assert [plural(name) for name in ("box", "cherry", "key", "fish", "wolf", "cup of coffee", "computer mouse")] == [
        "boxes",
        "cherries",
        "keys",
        "fish",
        "wolves",
        "cups of coffee",
        "computer mice",
    ]
    assert (be("scissors"), be("saw"), the("Saturn"), the("saw")) == ("are", "is", "Saturn", "the saw")
    assert listed(["a cat"]) == "a cat" and listed(["a", "b", "c"]) == "a, b and c"
    assert sentence("yes, it is") == "Yes, it is." and sentence("Is it?") == "Is it?"
    assert coloured("orange", "orange") == "orange", "a noun that is a colour gets none"
    assert not countable("milk") and not countable("flag of Brazil") and countable("apple")
