from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lorgnette.eval.metrics import METRICS, Reference, metric_named
from lorgnette.eval.metrics.bleu import bleu_4, bleu_counts
from lorgnette.eval.metrics.choice import choice_accuracy, choose
from lorgnette.eval.metrics.cider import cider_d
from lorgnette.eval.metrics.edit import anls, character_errors, edit_distance, word_errors
from lorgnette.eval.metrics.exact import exact_match
from lorgnette.eval.metrics.fields import field_counts
from lorgnette.eval.metrics.mathvista import extract, mathvista_accuracy
from lorgnette.eval.metrics.metric import Metric, per_example
from lorgnette.eval.metrics.mmmu import mmmu_accuracy, parse_choice
from lorgnette.eval.metrics.ptb import caption_words
from lorgnette.eval.metrics.relaxed import relaxed_accuracy
from lorgnette.eval.metrics.vqa import (
    normalise_words,
    strip_punctuation,
    textvqa_accuracy,
    vqa_accuracy,
    vqa_accuracy_normalised,
)

GOLDEN = Path(__file__).parent / "golden"
TEN = ("2",) * 7 + ("two", "3", "4")


# --- exact match


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("Red.", "red", 1),
        (" a  Dog\n", "dog", 1),
        ("the", "The", 1),
        ("\uff12", "2", 1),
        ("Straße", "STRASSE", 1),
        ("3", "three", 0),
        ("", "red", 0),
        ("", "", 1),
        ("left of", "left", 0),
    ],
)
def test_exact_match(answer: str, reference: str, score: float) -> None:
    assert exact_match(answer, ["other thing", reference]) == score


@given(st.text())
def test_exact_match_ignores_case_and_space(text: str) -> None:
    assert exact_match(f"  {text}\n", [text]) == 1


# --- VQA accuracy


@pytest.mark.parametrize(
    ("answer", "references", "accuracy"),
    [
        ("2", TEN, 1.0),
        ("two", TEN, 1.0),  # the answer's words become digits
        ("3", TEN, 9 * (1 / 3) / 10),  # given once: 9 times of 10 one other person said so
        ("cat", ("cat",) * 2 + ("dog",) * 8, (2 * (1 / 3) + 8 * (2 / 3)) / 10),
        ("cat", ("cat",) * 3 + ("dog",) * 7, (3 * (2 / 3) + 7 * 1) / 10),
        ("cat", ("cat",) * 4 + ("dog",) * 6, 1.0),
        ("The Cat!", ("cat",) * 4 + ("dog",) * 6, 1.0),
        ("the cat", ("the cat",) * 10, 1.0),
        ("two", ("two",) * 9 + ("2",), 1.0),
        ("Riyadh", ("Riyadh",) * 10, 1.0),
        ("none", ("none",) * 9 + ("nobody",), 1.0),
        ("A", ("a",) * 9 + ("b",), 1.0),
        ("x/y", ("x/y",) * 10, 1.0),
        ("riyadh", ("Riyadh",) * 10, 0.0),  # quirk: references that all agree are compared as they are
        ("Black.", ("black",) * 10, 0.0),
        (" black\n", ("black",) * 10, 1.0),
        ("x/y", ("x/y",) * 9 + ("no",), 1.0),
        ("", ("",) * 10, 1.0),
        ("", ("no",) * 10, 0.0),
        ("dont", ("don't",) * 10, 0.0),
        ("dont", ("don't",) * 9 + ("do",), 1.0),
        ("yes", (), 0.0),
    ],
)
def test_vqa_accuracy(answer: str, references: tuple[str, ...], accuracy: float) -> None:
    assert vqa_accuracy(answer, references) == pytest.approx(accuracy)


@pytest.mark.parametrize("answer", ["Riyadh", "riyadh.", "the Riyadh", "RIYADH!"])
def test_references_are_always_normalised_by_the_harnesses(answer: str) -> None:
    assert vqa_accuracy_normalised(answer, ["Riyadh"] * 10) == 1
    assert vqa_accuracy_normalised(answer, ["Rome"] * 10) == 0


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("ice-cream", "ice cream"),
        ("ice - cream", "ice  cream"),
        ("yes, it is", "yes it is"),
        ("a,b", "a b"),
        ("1,000 ice-cream", "1000 icecream"),  # a comma in a number deletes every mark
        ("3.5", "3.5"),
        ("5.", "5"),
        ("U.S.A.", "USA"),
        ("it's", "it's"),
        ("." * 40, "." * 8),  # at most 32 periods are removed
    ],
)
def test_punctuation_quirks(text: str, stripped: str) -> None:
    assert strip_punctuation(text) == stripped


def test_words_of_vqa() -> None:
    assert normalise_words("None of the two couldnt've seen Ten Dogs") == "0 of 2 couldn't've seen 10 dogs"
    assert normalise_words("somebody'd youve Im") == "somebodyd you've im"


def test_textvqa_normalises_both_sides() -> None:
    assert textvqa_accuracy("The dog's", ["dog 's"] * 10) == 1
    assert textvqa_accuracy("1,000?", ["1000"] * 10) == 1
    assert textvqa_accuracy("the cat", ["the cat"] * 10) == 1


@given(st.text(max_size=20), st.lists(st.text(max_size=6), min_size=1, max_size=10), st.randoms())
def test_vqa_accuracy_is_a_share_and_knows_no_order(answer: str, references: list[str], generator) -> None:  # type: ignore[no-untyped-def]
    shuffled = generator.sample(references, len(references))
    for accuracy in (vqa_accuracy, vqa_accuracy_normalised, textvqa_accuracy):
        assert 0 <= accuracy(answer, references) <= 1
        assert accuracy(answer, shuffled) == pytest.approx(accuracy(answer, references))


# --- edit distance


def slow_distance(first: str, second: str) -> int:
    """The textbook table."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        corner, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


@given(st.text("abc", max_size=12), st.text("abcd", max_size=12))
def test_edit_distance_is_the_table(first: str, second: str) -> None:
    assert edit_distance(first, second) == slow_distance(first, second) == edit_distance(second, first)


def test_edit_distance_of_long_texts_is_quick() -> None:
    assert edit_distance("ab" * 10_000, "b" + "ab" * 10_000) == 1
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance(["a", "dog"], ["the", "dog", "ran"]) == 2


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("Hello World", ["hello  world"], 1.0),
        ("hello wrld", ["hello world"], 1 - 1 / 11),
        ("abcd", ["abxy"], 0.5),
        ("abcd", ["axyz"], 0.0),
        ("", [""], 1.0),
        ("", ["a"], 0.0),
        ("$1,200", ["1200", "$1,200.00"], 1 - 3 / 9),
        ("x", [], 0.0),
    ],
)
def test_anls(answer: str, references: list[str], score: float) -> None:
    assert anls(answer, references) == pytest.approx(score)


def test_error_rates() -> None:
    assert character_errors("the  cat sat", ["the cat sat."]) == (1, 12)
    assert word_errors("the cat sat", ["The cat sat down"]) == (2, 4)
    assert word_errors("a b", ["x y z", "a b"]) == (0, 2)
    assert word_errors("three words here", [""]) == (3, 0)
    rate = metric_named("word_error_rate")
    assert rate.overall(["a b", "c"], [Reference(("a x",)), Reference(("c d e f",))]) == pytest.approx((1 + 3) / 6)


# --- relaxed accuracy


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("104.9", "100", 1),
        ("105.1", "100", 0),
        ("-97", "-100", 1),
        ("-103", "-100", 1),
        ("-106", "-100", 0),
        ("100", "-100", 0),
        ("50%", "0.5", 1),
        ("50", "50%", 0),
        ("0", "0", 1),
        ("0.0", "0", 1),
        ("0.01", "0", 0),
        ("1e3", "1000", 1),
        ("Yes", "yes", 1),
        ("yes ", "no", 0),
        ("inf", "inf", 1),
        ("nan", "5", 0),
        ("1_0", "10", 0),
        ("1,000", "1,000", 1),
        ("", "5", 0),
    ],
)
def test_relaxed_accuracy(answer: str, reference: str, score: float) -> None:
    assert relaxed_accuracy(answer, [reference]) == score


@given(st.floats(-1e6, 1e6), st.floats(-0.04, 0.04))
def test_relaxed_accuracy_knows_no_sign(value: float, change: float) -> None:
    assert relaxed_accuracy(repr(value * (1 + change)), [repr(value)]) == 1
    assert relaxed_accuracy(repr(-value * (1 + change)), [repr(-value)]) == 1


# --- captions


def test_caption_words_are_the_published_ones() -> None:
    rows = [line.split("\t") for line in (GOLDEN / "captions.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 100
    differing = {text: caption_words(text) for text, words in rows if caption_words(text) != words.split()}
    assert differing == {}


@settings(deadline=None)
@given(st.text())
@example("a" * 50_000)
@example("1:" * 25_000 + "x")
@example("+." * 25_000 + "@")
def test_caption_words_never_fail(text: str) -> None:
    words = caption_words(text)
    assert all(words)
    assert words == [word.lower() for word in words]


def test_captioning_scores_are_the_published_ones() -> None:
    golden = json.loads((GOLDEN / "captioning.json").read_text())
    answers = [row["answer"] for row in golden["examples"]]
    truths = [Reference(tuple(row["references"])) for row in golden["examples"]]
    cider, corpus_bleu = metric_named("cider_d"), metric_named("bleu_4")
    assert cider.scores(answers, truths) == pytest.approx([row["cider_d"] for row in golden["examples"]], abs=1e-8)
    assert cider.overall(answers, truths) == pytest.approx(golden["cider_d"], abs=1e-8)
    assert corpus_bleu.overall(answers, truths) == pytest.approx(golden["bleu_4"], abs=1e-9)


def test_bleu_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples and 1 of 3 quadruples match; the nearest reference is as long
    counts = bleu_counts(
        ["the", "cat", "sat", "on", "a", "mat"], [["the", "cat", "sat", "on", "the", "mat"], ["one", "cat"]]
    )
    assert counts == [5, 3, 2, 1, 6, 5, 4, 3, 6, 6]
    assert float(bleu_4(np.array(counts, float))) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    short = bleu_counts(["a", "b", "c", "d"], [["a", "b", "c", "d", "e", "f", "g", "h"]])
    assert float(bleu_4(np.array(short, float))) == pytest.approx(np.exp(1 - 8 / 4))


def test_cider_by_hand() -> None:
    # Two examples; words of only one of them weigh log 2. A copy of a single reference has cosine 1 for each n.
    answers = [["red", "car", "here", "now"], ["dog"]]
    references = [[["red", "car", "here", "now"]], [["cat"]]]
    assert cider_d(answers, references) == pytest.approx([10.0, 0.0])
    assert cider_d([["red", "car"], []], [[["red", "car"]], [["cat"]]]) == pytest.approx([5.0, 0.0])
    assert cider_d([["a"]], [[["a"]]]) == [0.0]


# --- fields and MMMU


@pytest.mark.parametrize(
    ("answer", "reference", "counts"),
    [
        ('{"total": "12", "date": "May"}', '{"date": "may", "total": 12}', (4, 4)),
        ('Sure!\n```json\n{"total": 12}\n```', '{"total": 12, "date": "May"}', (2, 3)),
        ('{"items": [{"n": "a"}, {"n": "b"}]}', '{"items": [{"n": "b"}, {"n": "a"}]}', (4, 4)),
        ('{"items": ["a", "a"]}', '{"items": ["a"]}', (2, 3)),
        ("no json here {", '{"a": 1}', (0, 1)),
        ("{}", "{}", (1, 1)),
        ('{"a": {"b": true, "c": null}}', '{"a": {"b": true, "c": "null"}}', (4, 4)),
        ("[" * 5000, '{"a": 1}', (0, 1)),
    ],
)
def test_field_counts(answer: str, reference: str, counts: tuple[int, int]) -> None:
    assert field_counts(answer, [reference]) == counts


OPTIONS = ("a red house", "Cat", "42", "none of these", "a dog")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("E", "E"),  # options go beyond D
        ("F", None),
        ("(A) is wrong, so (C)", "C"),
        ("(C) and not A or B ", "C"),
        ("Is it A or D or B ?", "B"),
        ("b", "B"),  # where the official code draws lots, `choose` reads
        ("I think that it must be the cat", "B"),
        ("It may be cat, but then it is a dog", "E"),
        ("cat", "B"),
        ("", None),
    ],
)
def test_mmmu_choices(answer: str, letter: str | None) -> None:
    assert parse_choice(answer, OPTIONS) == letter
    assert mmmu_accuracy(answer, ["B"], OPTIONS) == (letter == "B")


@pytest.mark.parametrize(
    ("answer", "references", "score"),
    [
        ("The answer is 5.", ["5"], 1),
        ("x = 3,000.004", ["3000"], 1),
        ("so it is 4\ntherefore 7", ["4"], 1),
        ("so it is 4\ntherefore 7", ["8"], 0),
        ("it is the big cat", ["Big Cat"], 1),
        ("-2e3", ["-2000"], 1),
        ("x", ["x"], 1),
        ("box", ["x"], 0),  # a single letter must stand beside a space
        ("", ["5"], 0),
        ("nan", ["nan"], 0),
        ("15 or 16", ["24", "16"], 1),
    ],
)
def test_mmmu_open_answers(answer: str, references: list[str], score: float) -> None:
    assert mmmu_accuracy(answer, references) == score


# --- multiple choice


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(E)", "E"),  # options go beyond D
        ("F", None),
        ("Answer: B", "B"),
        ("The answer is (C).", "C"),
        ("The correct option is: **B**", "B"),
        ("B. Cat", "B"),
        ("Option A is wrong, the answer is D", "D"),
        ("A dog is what I see", "E"),  # in a longer answer A is an article
        ("A or B", None),
        ("A", "A"),
        ("cat", "B"),
        ("It is the cat, I think.", "B"),
        ("It is a concatenation", None),
        ("a red house", "A"),
        ("the answer is a dog", "E"),
        ("forty-two, so 42!", "C"),
        ("", None),
        ("Ich weiß es nicht", None),
        ("cat or a dog", None),
    ],
)
def test_choices(answer: str, letter: str | None) -> None:
    assert choose(answer, OPTIONS) == letter
    assert choice_accuracy(answer, ["B"], OPTIONS) == (letter == "B")


def test_choices_that_look_like_letters_or_each_other() -> None:
    assert choose("A", ("B", "A")) == "A", "a letter is a letter, whatever the options are called"
    assert choose("dark red", ("red", "dark red")) == "B"
    assert choose("it is dark red there", ("red", "dark red")) == "B"
    assert [choose(answer, ("red", "Red")) for answer in ("red", "Red", "RED")] == ["A", "B", None], "as written, first"
    assert choose("so it is red", ("red", "red")) is None
    assert choice_accuracy("Red.", ["red"], ()) == 1


@given(st.text(), st.lists(st.text(), min_size=2, max_size=9))
def test_a_choice_is_a_letter_of_an_option(answer: str, options: list[str]) -> None:
    assert choose(answer, options) in (None, *"ABCDEFGHI"[: len(options)])


def test_a_circle_is_right_if_all_of_it_is() -> None:
    options, metric = ("x", "y"), metric_named("circular_accuracy")
    truths = [
        Reference((letter,), options, group=group) for letter, group in (("A", "1"), ("B", "1"), ("A", "2"), ("B", "2"))
    ]
    assert metric.overall(["A", "B", "A", "A"], truths) == pytest.approx(1 / 2)
    assert metric.scores(["A", "B", "A", "A"], truths) == [1, 1, 0, 0]
    alone = [Reference(("A",), options), Reference(("B",), options), *truths]
    assert metric.overall(["A", "A", "A", "B", "A", "B"], alone) == pytest.approx(3 / 4), (
        "no group, a question by itself"
    )


# --- MathVista

NUMBER, TENTHS, LIST = (
    Reference(("12",), form="integer"),
    Reference(("0.6",), form="float:1"),
    Reference(("[1, 2]",), form="list"),
)
CHOICE = Reference(("B",), ("3/11", "8/11", "6/11", "3/5"))


@pytest.mark.parametrize(
    ("answer", "truth", "found", "score"),
    [
        ("12", NUMBER, "12", 1),
        ("12.0", NUMBER, "12.0", 1),
        ("The answer is 12 apples, of 30.", NUMBER, "12", 1),
        ("30 - 18 = 12", NUMBER, "12", 1),
        ("In all there are 7, 8 and 12", NUMBER, "12", 1),
        ("1,200", Reference(("1200",), form="integer"), "1200", 1),
        ("-12", NUMBER, "-12", 0),
        ("nobody knows", NUMBER, None, 0),
        ("inf", NUMBER, None, 0),
        ("The fraction is 0.6, six out of ten.", TENTHS, "0.6", 1),
        ("0.64", TENTHS, "0.64", 1),
        ("0.66", TENTHS, "0.66", 0),
        (".6", TENTHS, ".6", 1),
        ("1.450", Reference(("1.45",), form="float:2"), "1.450", 1),
        ("between 1 and 2: [1, 2]", LIST, "[1, 2]", 1),
        ("[1,2]", LIST, "[1,2]", 1),
        ("[2, 1]", LIST, "[2, 1]", 0),
        ("1 and 2", LIST, None, 0),
        ("[1, oops]", LIST, "[1, oops]", 0),
        ("The correct answer is (B) 8/11.", CHOICE, "B", 1),
        ("8/11", CHOICE, "B", 1),
        ("8 / 11", CHOICE, "B", 1),  # a short answer goes to the nearest choice
        ("I would need more information to say anything about that", CHOICE, None, 0),
        ("", CHOICE, None, 0),
        ("blau", Reference(("blau",)), "blau", 1),
    ],
)
def test_mathvista(answer: str, truth: Reference, found: str | None, score: float) -> None:
    assert extract(answer, truth) == found
    assert mathvista_accuracy(answer, truth) == score


@pytest.mark.parametrize("form", ["integer", "float:1", "float:2", "list", ""])
@given(answer=st.text())
@example(answer="9" * 5000)
@example(answer="is " * 5000)
@example(answer="[" * 5000)
@example(answer="[" + "-" * 5000 + "]")
@example(answer="1e999")
def test_mathvista_never_fails(form: str, answer: str) -> None:
    for wanted in ("1", "[1]", "1e400", ""):
        assert mathvista_accuracy(answer, Reference((wanted,), form=form)) in (0, 1)


# --- all of them

MMMU = {"mmmu_accuracy", "mmmu_accuracy_lmms_eval", "mmmu_accuracy_vlmevalkit"}

texts = st.text(max_size=40) | st.sampled_from(["a dog", "A red car on the street.", '{"a": [1, "b"]}', "5%", "(B)"])
truths = st.builds(
    Reference,
    st.lists(texts, min_size=1, max_size=5).map(tuple),
    st.lists(texts, max_size=5, min_size=2).map(tuple),
    st.sampled_from(["", "integer", "float:2", "list"]),
    st.sampled_from(["", "one", "two"]),
)


@pytest.mark.parametrize("name", METRICS)
@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(texts, truths), min_size=1, max_size=5), generator=st.randoms())
def test_every_metric_is_finite_and_knows_no_order(name: str, pairs, generator) -> None:  # type: ignore[no-untyped-def]
    metric = METRICS[name]
    scores = metric.scores(*zip(*pairs, strict=True))
    assert np.isfinite(scores).all()
    assert min(scores) >= 0
    order = generator.sample(range(len(pairs)), len(pairs))
    shuffled = [pairs[i] for i in order]
    assert metric.scores(*zip(*shuffled, strict=True)) == pytest.approx([scores[i] for i in order])
    assert metric.overall(*zip(*shuffled, strict=True)) == pytest.approx(metric.overall(*zip(*pairs, strict=True)))


@pytest.mark.parametrize("name", sorted(METRICS.keys() - MMMU - {"unscored"}))
def test_the_reference_itself_is_perfect(name: str) -> None:
    texts = ["a red car on a street", "two green dogs in the park", '{"total": 12}']
    best = {"cider_d": 10.0, "character_error_rate": 0.0, "word_error_rate": 0.0}.get(name, 1.0)
    texts = [*texts[:2], "one blue boat on water"] if name in ("cider_d", "bleu_4") else texts
    references = [Reference((text,) * 10) for text in texts]
    if name == "field_f1":
        texts, references = texts[2:], references[2:]
    score = METRICS[name].overall(texts, references)
    assert score == pytest.approx(best, abs=1e-6)


CASE_COUNTS = MMMU | {
    "character_error_rate", "word_error_rate", "choice_accuracy", "circular_accuracy", "mathvista_accuracy",
    "vqa_accuracy",
}  # fmt: skip
"""VQA's official code compares references that all agree as they are. Transcriptions are judged letter by letter, an
option's letter that stands alone is a capital, and MathVista compares what is no number as it is written."""


@pytest.mark.parametrize("name", sorted(METRICS.keys() - CASE_COUNTS))
@given(st.lists(st.text("abc tv12.'", max_size=12), min_size=1, max_size=4), st.text("abc tv12.'", max_size=12))
def test_case_does_not_count(name: str, references: list[str], answer: str) -> None:
    metric = METRICS[name]
    plain = metric.scores([answer, "b"], [Reference(tuple(references)), Reference(("c",))])
    loud = metric.scores([answer.upper(), "B"], [Reference(tuple(references)), Reference(("c",))])
    assert loud == pytest.approx(plain)
    shouted = metric.scores([answer, "b"], [Reference(tuple(map(str.upper, references))), Reference(("C",))])
    assert shouted == pytest.approx(plain)


@pytest.mark.parametrize("name", METRICS)
def test_odd_and_long_answers_are_scored(name: str) -> None:
    answers = ["", " \n\t", "x" * 20_000, "ja " * 5_000, "Ünïcödé \u200b\U0001f600", "\ud800", "[" * 3000, "-" * 3000]
    truths = [Reference(("a red car", "1"), ("a red car", "1"), "integer", "g")] * len(answers)
    assert np.isfinite(METRICS[name].scores(answers, truths)).all()
    assert np.isfinite(METRICS[name].overall(answers, truths))


def test_metrics_of_nothing() -> None:
    for metric in METRICS.values():
        assert metric.scores([], []) == []
        assert metric.overall([], []) == 0
    with pytest.raises(ValueError, match="1 answers for 0"):
        METRICS["anls"].scores(["a"], [])


def test_micro_average_is_not_a_mean_of_ratios() -> None:
    words = Metric(lambda answers, truths: [(1, 2), (1, 8)])
    assert words.overall(["", ""], [Reference(()), Reference(())]) == pytest.approx(0.2)
    assert words.scores(["", ""], [Reference(()), Reference(())]) == [0.5, 0.125]
    assert per_example(lambda answer, truth: 0.5).overall(["x"], [Reference(())]) == 0.5
