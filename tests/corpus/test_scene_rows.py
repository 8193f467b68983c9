"""Rows of scenes: what is said of them is true, every task takes its turn, and splits share no drawing."""

from __future__ import annotations

import random
import re

import numpy as np
import PIL.ImageOps
import pytest

from corpus.drawn.labels import noun_of
from corpus.drawn.layout import PLACES, single
from corpus.drawn.question_source import BRIEF, Row
from corpus.drawn.scene_rows import TELL, SceneSource, told
from corpus.drawn.scene_tasks import TASKS
from corpus.drawn.wordings import NUMBERS
from lorgnette.data.builtin.drawings import SPLITS, drawings
from lorgnette.errors import DataError


def words(row: Row) -> list[str]:
    if row["caption"]:
        return [row["caption"]]
    return [said for turn in row["texts"] for said in (turn["user"], turn["assistant"])]


def test_a_row_hangs_on_its_number_alone() -> None:
    settings = {"tasks": (*TASKS, TELL), "brief": 0.5}
    one, other = SceneSource("train", 3, **settings), SceneSource("train", 3, **settings)
    backwards = {index: other.row(index) for index in reversed(range(24))}
    assert all(one.row(index) == backwards[index] for index in range(24))
    assert words(SceneSource("train", 4, **settings).row(0)) != words(one.row(0))


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_made_of_the_drawings_of_their_split(split: str) -> None:
    own = {row.id for row in drawings(split)}
    source = SceneSource(split, tasks=(*TASKS, TELL))
    assert all(own.issuperset(source.row(index)["drawings"]) for index in range(60))


def test_tasks_take_turns_and_one_that_is_named_twice_has_two() -> None:
    source = SceneSource(tasks=("colour", "count", "colour"))
    assert [source.row(index)["kind"] for index in range(6)] == ["colour", "count", "colour"] * 2
    alone = SceneSource(tasks=("colour",))
    doubled = [source.row(index) for index in (0, 2, 3, 5)]
    assert [words(one) for one in doubled] == [words(alone.row(index)) for index in range(4)]


def test_a_scene_is_told_thing_by_thing() -> None:
    source, table = SceneSource(tasks=(TELL,)), {row.id: row for row in drawings("train")}
    for index in range(80):
        row = source.row(index)
        [text] = words(row)
        rows = [table[name] for name in row["drawings"]]
        assert row["texts"] is None
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
            said = words(source.row(index))
            for question, answer in zip(said[::2], said[1::2], strict=True):
                assert question.endswith(BRIEF) == bool(brief)
                assert (answer == answer.rstrip(".")) == bool(brief)


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
