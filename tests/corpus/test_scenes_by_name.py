"""Questions about named things: each answer is worked out again from the boxes of the scene."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import PIL.Image
import pytest

from corpus.drawn import named_questions
from corpus.drawn.cast import cast, family
from corpus.drawn.questions import phrase
from lorgnette.data.builtin.drawings import SPLITS
from tests.corpus.oracles import lies, stands


def plays(split="test", count=40):
    players = cast(split, 0, "test")
    for number in range(count):
        rng = random.Random(f"test {number}")
        yield rng, players, players.led(rng, number, 2, 4)


@pytest.mark.parametrize("split", SPLITS)
def test_no_two_things_of_a_scene_are_of_one_family_or_overlap(split):
    for _, _, play in plays(split):
        families = [family(thing.drawing) for thing in play.things]
        assert len(set(families)) == len(families)
        for at, one in enumerate(play.things):
            for two in play.things[:at]:
                apart = one.box[2] <= two.box[0] or two.box[2] <= one.box[0]
                assert apart or one.box[3] <= two.box[1] or two.box[3] <= one.box[1]


def test_what_is_where_follows_from_the_boxes():
    kinds = Counter()
    for _, _, play in plays():
        things = dict(zip(play.nouns, play.things, strict=True))
        for one in named_questions.whats(play):
            kinds[one.kind] += 1
            if one.kind == "what at":
                (place,) = [thing.place for thing in play.things if phrase(thing.place) == one.filled["place"]]
                assert [name for name, thing in things.items() if lies(play, thing, place)].count(one.answer) == 1
            else:
                other = things[one.filled["other"].removeprefix("the ")]
                assert stands(one.filled["relation"], things[one.answer], other)
    assert min(kinds["what at"], kinds["what beside"]) > 50


def test_places_and_relations_follow_from_the_boxes():
    answers = Counter()
    for _, _, play in plays():
        things = dict(zip(play.nouns, play.things, strict=True))
        for one in named_questions.places(play):
            thing = things[one.filled["the"].removeprefix("the ")]
            if one.kind == "where":
                assert lies(play, thing, one.answer)
            elif one.kind == "side":
                assert one.filled["relation"].startswith(one.answer)
                assert stands(one.filled["relation"], thing, things[one.filled["other"].removeprefix("the ")])
            else:
                other = things[one.filled["other"].removeprefix("the ")]
                assert (one.answer == "yes") == stands(one.filled["relation"], thing, other)
                answers[one.answer] += 1
    assert answers["yes"] == answers["no"] > 100


def test_counts_are_those_of_the_scene_and_numbers_take_turns():
    players, seen = cast("train", 0, "test"), Counter()
    for number in range(60):
        play, name, often = named_questions.crowd(players, random.Random(f"test {number}"), number)
        assert play.nouns.count(name) == often and 1 <= len(play.things) <= 6
        assert {one.answer for one in named_questions.counts(play)} == {
            str(play.nouns.count(noun)) for noun in play.nouns if named_questions.countable(noun)
        }
        seen[often] += 1
    assert seen == dict.fromkeys(range(5), 12)


def test_a_thing_that_is_not_there_is_of_another_family():
    for rng, players, play in plays():
        name = players.absent(rng, play)
        assert family(players.drawings[players.by_noun[name][0]]) not in {family(one.drawing) for one in play.things}


def test_a_scene_is_drawn_as_it_is_described():
    for _, _, play in plays(count=10):
        picture = play.draw()
        assert isinstance(picture, PIL.Image.Image) and picture.mode == "RGB"
        pixels = np.asarray(picture, dtype=int)
        ground = np.array(play.scene.background)
        for left, top, right, bottom in (thing.box for thing in play.things):
            assert (np.abs(pixels[top:bottom, left:right] - ground).max(axis=2) > 8).any()
