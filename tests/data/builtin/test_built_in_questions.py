"""Questions of the built-in corpus for what is no training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from corpus.drawn.question_source import QuestionSource
from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.builtin.questions import questions_for_evaluation
from lorgnette.errors import DataError


def test_questions_for_evaluation_are_those_that_the_corpus_makes_of_the_test_split():
    source, table = QuestionSource("test", 0, size=128), drawings("test")
    for number, sample in enumerate(questions_for_evaluation(24)):
        made = source.describe(number)
        assert (sample.meta["question"], sample.meta["answer"]) == (made["question"], made["answer"])
        assert (sample.meta["kind"], sample.meta["form"]) == (made["kind"], made["form"])
        assert sample.name == f"questions/test/0/{number}"
        assert np.array_equal(np.asarray(sample.images[0].source), np.asarray(made["scene"].draw(table)))


def test_each_kind_is_asked_equally_often():
    assert set(Counter(sample.meta["kind"] for sample in questions_for_evaluation(1000)).values()) == {250}


def test_another_seed_asks_other_questions_of_each_kind_as_often():
    asked = [questions_for_evaluation(100, seed) for seed in (0, 1, 9, 10)]
    assert not {one.name for one in asked[0]} & {one.name for one in asked[1]}
    assert asked[0] == asked[3]
    assert all(set(Counter(one.meta["kind"] for one in some).values()) == {25} for some in asked)


def test_more_than_there_are_is_refused():
    with pytest.raises(DataError, match="1001 questions about drawings: the built-in corpus has 1,000"):
        questions_for_evaluation(1001)
