"""Scenes on demand: what is said of them is true, every task takes its turn, and splits share no drawing."""

from __future__ import annotations

import random
import re

import numpy as np
import PIL.ImageOps
import pytest

from lorgnette.data.builtin.drawings import SPLITS, drawings
from lorgnette.data.builtin.labels import noun_of
from lorgnette.data.builtin.scene_source import TELL, SceneSource, told
from lorgnette.data.builtin.scene_tasks import TASKS
from lorgnette.data.builtin.scenes import PLACES, single
from lorgnette.data.builtin.sources import BRIEF
from lorgnette.data.builtin.wordings import NUMBERS
from lorgnette.errors import DataError
from lorgnette.sample import Sample, Text, Turn


def words(sample: Sample) -> list[str]:
    return [one.text for one in sample.segments if isinstance(one, Text)]


def test_a_sample_hangs_on_its_number_alone() -> None:
    settings = {"tasks": (*TASKS, TELL), "brief": 0.5}
    one, other = SceneSource("train", 3, **settings), SceneSource("train", 3, **settings)
    backwards = {index: other[index] for index in reversed(range(24))}
    for index in range(24):
        assert words(one[index]) == words(backwards[index])
        assert np.array_equal(np.asarray(one[index].images[0].source), np.asarray(backwards[index].images[0].source))
    assert words(SceneSource("train", 4, **settings)[0]) != words(one[0])


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_made_of_the_drawings_of_their_split(split: str) -> None:
    own = {row.id for row in drawings(split)}
    source = SceneSource(split, tasks=(*TASKS, TELL))
    assert all(own.issuperset(source[index].meta["drawings"]) for index in range(60))


def test_tasks_take_turns_and_one_that_is_named_twice_has_two() -> None:
    source = SceneSource(tasks=("colour", "count", "colour"))
    assert [source[index].meta["task"] for index in range(6)] == ["colour", "count", "colour"] * 2
    alone = SceneSource(tasks=("colour",))
    doubled = [source[index] for index in (0, 2, 3, 5)]
    assert [words(one) for one in doubled] == [words(alone[index]) for index in range(4)]


def test_a_scene_is_told_thing_by_thing() -> None:
    source, table = SceneSource(tasks=(TELL,)), {row.id: row for row in drawings("train")}
    for index in range(80):
        sample = source[index]
        [text] = words(sample)
        rows = [table[name] for name in sample.meta["drawings"]]
        assert not sample.is_chat and sample.segments[1].learn
        if len(rows) == 1:
            assert ";" not in text
        else:
            number, _, rest = text.removesuffix(".").partition(" things: ")
            said = rest.split("; ")
            assert NUMBERS.index(number.lower()) == len(said) == len(rows)
            places = [re.match(r"(?:at the|in the|on the) ([a-z ]+?) (?:an? |the )?", one) for one in said]
            order = [max((p for p in PLACES if f" {p} " in one), key=len) for one in said]
            assert all(places) and order == sorted(order, key=PLACES.index)
        for row in rows:
            noun = noun_of(row)
            assert (noun or row.category or "drawing").lower() in text.lower()
            assert noun or (row.colour or "") in text.lower()  # of named things, black and the like are not said


def test_brief_answers_are_asked_for_as_the_benchmarks_do() -> None:
    for brief in (0.0, 1.0):
        source = SceneSource(brief=brief)
        for index in range(40):
            said = words(source[index])
            for question, answer in zip(said[::2], said[1::2], strict=True):
                assert question.endswith(BRIEF) == bool(brief)
                assert (answer == answer.rstrip(".")) == bool(brief)


def test_only_answers_are_learned() -> None:
    for index in range(20):
        role = ""
        for one in SceneSource()[index].segments:
            role = one.role if isinstance(one, Turn) else role
            assert not isinstance(one, Text) or one.learn == (role == "assistant")


def test_a_mirrored_drawing_stands_where_it_stood() -> None:
    table = drawings("train")
    scene = single(random.Random(0), table, 5, 96)
    [thing] = scene.placed
    plain, mirrored = scene.draw(table).crop(thing.box), scene.draw(table, {0}).crop(thing.box)
    assert np.array_equal(np.asarray(mirrored), np.asarray(PIL.ImageOps.mirror(plain)))
    assert told(scene)[0].isupper()


def test_an_unknown_task_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match="use some of what, category, colour, count, place, named, tell"):
        SceneSource(tasks=("colours",))


def test_yes_and_no_are_as_frequent_and_nothing_but_the_picture_tells_them() -> None:
    found = [[(one.kind, one.answer) for one in TASKS["named"]("train", 0, number, 64).asked] for number in range(400)]
    assert all(found)
    for kind in ("is there", "related"):
        said = [[answer for one, answer in row if one == kind] for row in found]
        first = [answers[0] for answers in said if answers]
        assert 0.44 < first.count("yes") / len(first) < 0.56
        same = [answers[0] == answers[1] for answers in said if len(answers) > 1]
        assert len(same) > 40 and 0.35 < sum(same) / len(same) < 0.65, "the first answer tells the second"
