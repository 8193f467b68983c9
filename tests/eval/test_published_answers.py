"""Answers that other evaluations have scored wrongly, and that are scored rightly here."""

from __future__ import annotations

import pytest

from lorgnette.eval.metrics import Reference, metric_named
from lorgnette.eval.metrics.choice import choice_accuracy, choose
from lorgnette.eval.metrics.edit import anls
from lorgnette.eval.metrics.mmmu import mmmu_accuracy
from lorgnette.eval.metrics.relaxed import relaxed_accuracy

OPTIONS = ("a man", "a boy", "a girl", "a dog")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("ANSWER: A is what I thought first; actually, ANSWER: B", "B"),
        ("Answer: AB", None),
        ("The correct answer is B. Here's why option C is wrong", "B"),
        ("答案：B", "B"),
    ],
)
def test_the_letter_of_a_verbose_answer(answer, letter):
    assert choose(answer, ("red", "green", "blue")) == letter
    assert choice_accuracy(answer, ["B"], ("red", "green", "blue")) == (letter == "B")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Therefore the answer is 0.5", "0.5"),
        ("so 1/2 = 0.5\nThe answer is 0.5.", "0.5"),
        ("We find x = -3.", "-3"),
        ("In total that is 1,200 people", "1200"),
    ],
)
def test_numbers_of_an_open_answer_are_not_lost(answer, reference):
    assert mmmu_accuracy(answer, [reference]) == 1


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("blue", ["red", "blue", "azure"], 1.0),
        ("blu", ["red", "blue"], 0.75),
        ("BLUE", ["green", "blue"], 1.0),
    ],
)
def test_the_nearest_of_several_references_counts(answer, references, score):
    assert anls(answer, references) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("95", "100", 1),  # 5 % of the reference, not of the answer
        ("100", "95", 0),
        ("1995.", "1995", 1),
        ("Yes.", "Yes", 0),  # as published: only numbers are read
        ("2000", "1995", 1),  # as published: a year is a number like any other
    ],
)
def test_the_margin_is_a_share_of_the_reference(answer, reference, score):
    assert relaxed_accuracy(answer, [reference]) == score


def test_cider_of_one_image_is_zero_as_published():
    metric = metric_named("cider_d")
    assert metric.overall(["a red car"], [Reference(("a red car",))]) == 0.0
    two = [Reference(("a red car",)), Reference(("a dog",))]
    assert metric.overall(["a red car", "a dog"], two) > 1
