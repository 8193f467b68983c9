"""Free answers and the option that they name."""

from __future__ import annotations

import time

import pytest

from lorgnette.data.record import Refused
from lorgnette.eval.metrics.choice import choose
from lorgnette.eval.metrics.mmmu import parse_choice, parse_choice_lmms_eval, parse_choice_vlmevalkit
from lorgnette.eval.tasks.reading import letter_at, letter_numbered, letters_of_text, options_of

OPTIONS = ("a red house", "Cat", "42", "none of these", "a dog")
VITAMINS = ("Vitamin D", "Vitamin C", "Vitamin B", "Vitamin A")
BOTH = ("A only", "B only", "Both A and B", "Neither")
PEOPLE = ("a man", "a boy", "a girl", "a dog")
PETS = ("cat", "dog")
COUNTS = ("1", "2", "3", "4")


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B", OPTIONS, "B"),
        ("b.", OPTIONS, "B"),
        ("(E)", OPTIONS, "E"),
        ("F", OPTIONS, None),
        ("Answer: B", OPTIONS, "B"),
        ("The answer is (C).", OPTIONS, "C"),
        ("The correct option is: **B**", OPTIONS, "B"),
        ("B. Cat", OPTIONS, "B"),
        ("Option A is wrong, the answer is D", OPTIONS, "D"),
        ("A dog is what I see", OPTIONS, "E"),
        ("A or B", OPTIONS, None),
        ("A", OPTIONS, "A"),
        ("cat", OPTIONS, "B"),
        ("It is the cat, I think.", OPTIONS, "B"),
        ("It is a concatenation", OPTIONS, None),
        ("a red house", OPTIONS, "A"),
        ("the answer is a dog", OPTIONS, "E"),
        ("forty-two, so 42!", OPTIONS, "C"),
        ("", OPTIONS, None),
        ("Ich weiß es nicht", OPTIONS, None),
        ("cat or a dog", OPTIONS, None),
        ("Vitamin D", VITAMINS, "A"),
        ("Vitamin D.", VITAMINS, "A"),
        ("the answer is vitamin D", VITAMINS, "A"),
        ("It is vitamin C because of scurvy", VITAMINS, "B"),
        ("Both A and B", BOTH, "C"),
        ("I think both A and B are right", BOTH, "C"),
        ("A only", BOTH, "A"),
        ("Answer: Both A and B", BOTH, "C"),
        ("A cat", ("dog", "cat"), "B"),
        ("A kitten", ("dog", "cat"), None),
        ("选项B", PETS, "B"),
        ("Ｂ", PETS, "B"),
        ("答案：B", PETS, "B"),
        ("答案是Ｂ。", PETS, "B"),
        ("选B", PETS, "B"),
        ("我选择 B", PETS, "B"),
        ("正解はBです", PETS, "B"),
        ("정답은 B입니다", PETS, "B"),
        ("B选项", PETS, "B"),
        ("答案是 A，因为", PETS, "A"),
        ("the answer is a", PETS, "A"),
        ("The answer is a.", PETS, "A"),
        ("the answer is b", PETS, "B"),
        ("(a)", PETS, "A"),
        ("answer: (a) cat", PETS, "A"),
        ("the answer is a dog", PETS, "B"),
        ("the answer is a) cat", PETS, "A"),
        ("\\boxed{C}", PEOPLE, "C"),
        ("So \\boxed{\\text{C}}.", PEOPLE, "C"),
        ("$\\boxed{\\textbf{(B)}}$", PEOPLE, "B"),
        ("**Answer: D**", PEOPLE, "D"),
        ("B. a boy", PEOPLE, "B"),
        ("C. A pretty girl", PEOPLE, "C"),
        ("c. a girl", PEOPLE, "C"),
        ("(c) girl", PEOPLE, "C"),
        ("C: girl", PEOPLE, "C"),
        ("C) girl", PEOPLE, "C"),
        ("The correct answer is B. Here's why option C is wrong", PEOPLE, "B"),
        ("ANSWER: A ... actually, ANSWER: B", PEOPLE, "B"),
        ("Answer: AB", PEOPLE, None),
        ("AB", PEOPLE, None),
        ("2", COUNTS, "B"),
        ("The answer is 2.", COUNTS, "B"),
        ("3", COUNTS, "C"),
        ("2.5", COUNTS, None),
        ("there are 3 of them", COUNTS, "C"),
        ("I would pick A.", PEOPLE, "A"),
        ("I would pick option A", PEOPLE, "A"),
        ("A is correct, because it is so", PEOPLE, "A"),
        ("B is the correct answer", PEOPLE, "B"),
        ("Option B", PEOPLE, "B"),
        ("The B-cells", PEOPLE, None),
        ("C++", PEOPLE, None),
        ("A", ("B", "A"), "A"),
        ("dark red", ("red", "dark red"), "B"),
        ("it is dark red there", ("red", "dark red"), "B"),
        ("red", ("red", "Red"), "A"),
        ("RED", ("red", "Red"), None),
        ("5'", ("5'", '5"'), "A"),
        ("about $50", ("$5", "$50"), "B"),
        ("$5", ("5", "$5"), "B"),
        ("{'answer': 'B'}", PETS, "B"),
        ("The answer is 'B'", PETS, "B"),
        ("option b", PETS, "B"),
        ("B, because A is wrong, and so is no other", PETS, "B"),
        ("So B, as A and C are wrong", PEOPLE, "B"),
        ("Not A. B.", PETS, "B"),
        ("", ("", "x"), None),
        ("?", ("?!", "x"), None),
        ("I think it is the red one", ("red", *(f"the {number}th" for number in range(9))), "A"),
        ("I think it is J", tuple(f"the {number}th" for number in range(10)), "J"),
        ("28 apples", tuple(f"{number} apples" for number in range(30)), None),
        ("5 apples", tuple(f"{number} apples" for number in range(30)), "F"),
        ("so it is red", ("red", "red"), None),
        ("y", ("x", "y"), "B"),
        ("<answer>B</answer>", PEOPLE, "B"),
        ("A. a man\nB. a boy\nAnswer: B", PEOPLE, "B"),
        ("A. a man\nB. a boy", PEOPLE, None),
        ("这是一只狗", ("猫", "狗"), "B"),
        ("_B_", PEOPLE, "B"),
        ("`B`", PEOPLE, "B"),
        ("[B]", PEOPLE, "B"),
        ("Ⓑ", PEOPLE, "B"),
        ("⒝", PEOPLE, "B"),
        ("The answer is A", PEOPLE, "A"),
        ("The answer is A because", PEOPLE, "A"),
        ("Final Answer: $B$", PEOPLE, "B"),
        ("**B**", PEOPLE, "B"),
        ("**B.** a boy", PEOPLE, "B"),
        ("The answer is **(C)**", PEOPLE, "C"),
        ("Answer is option C", PEOPLE, "C"),
        ("The best answer is: option (D) a dog", PEOPLE, "D"),
        ("The answer is C, not D", PEOPLE, "C"),
        ("The answer is: C. a girl", PEOPLE, "C"),
        ("Answer：Ｄ", PEOPLE, "D"),
        ("e.g. a dog", PEOPLE, "D"),
        ("I see a girl.", PEOPLE, "C"),
        ("So I choose C", PEOPLE, "C"),
        ("The answer is $\\text{B}$", PEOPLE, "B"),
        ("answer b", PEOPLE, "B"),
        ("The answer is not B", PEOPLE, None),
        ("A boy", PEOPLE, "B"),
        ("A. Lincoln", ("G. Washington", "A. Lincoln"), "B"),
        ("US", ("UK", "US"), "B"),
        ("The answer is US", ("UK", "US"), "B"),
        ("Option A and option B are wrong; C", PEOPLE, None),
        ("Answer: A, B", PEOPLE, "A"),
        ("B\n\nBecause C is a girl and A is a man", PEOPLE, "B"),
        ("B because it looks like it", PEOPLE, "B"),
        ("D\nExplanation: A dog is shown", PEOPLE, "D"),
        ("A\nThe picture shows a man", PEOPLE, "A"),
    ],
)
def test_the_option_that_an_answer_names(answer: str, options: tuple[str, ...], letter: str | None) -> None:
    assert choose(answer, options) == letter


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("B. a boy", "BBB"),
        ("**Answer: D**", "DDD"),
        ("(a)", "AAA"),
        (r"\\boxed{C}", "CCC"),
        ("C. A pretty girl", "AAC"),  # the official code and lmms-eval take the article, as published
        ("The correct answer is B. Here's why option C is wrong", "CCB"),
    ],
)
def test_mmmu_reads_as_each_harness(answer: str, letters: str) -> None:
    parsers = (parse_choice, parse_choice_lmms_eval, parse_choice_vlmevalkit)
    assert "".join(parse(answer, PEOPLE) or "-" for parse in parsers) == letters


@pytest.mark.parametrize(
    "answer",
    [
        "answer" + " " * 20_000,
        "answer " * 5_000,
        "a" + "_" * 20_000 + "b",
        "<answer>" * 4_000,
        "\\boxed{" * 4_000,
        "the answer is a " * 2_000,
        "A.\n" * 8_000,
        "A" + " " * 20_000 + "is",
        "A" + ")" * 20_000,
    ],
)
def test_long_answers_are_read_quickly(answer: str) -> None:
    start = time.process_time()
    choose(answer, OPTIONS)
    assert time.process_time() - start < 2


def test_an_answer_given_as_a_text_is_no_number_of_an_option() -> None:
    assert letter_at("2", COUNTS) == "B"
    assert letters_of_text("2", COUNTS) == ("B",)
    assert letters_of_text(2.0, COUNTS) == ("B",)
    assert letters_of_text("B", ("B", "A")) == ("A",), "MathVista's answers are texts"
    assert letters_of_text("C", COUNTS) == ("C",)
    assert letters_of_text("3", ("3", "2", "3")) == ("A", "C"), "any of the options that read like the answer is right"
    assert letter_at("B", ("B", "A")) == "B", "MMBench's and MMMU's answers are letters"
    assert letter_numbered("2", COUNTS) == "C", "AI2D's answers are numbers of options"
    assert letter_numbered(2, COUNTS) == "C"
    assert letter_numbered("D", COUNTS) == "D"
    for wrong in ("9", "\u00b2", "x", "", None, "1" * 5000):
        with pytest.raises(Refused, match="is none of the 4 options") as refused:
            letter_numbered(wrong, COUNTS)
        assert len(str(refused.value)) < 300


def test_options_may_be_written_as_text() -> None:
    for column in (["a", "b"], "['a', 'b']", '["a", "b"]'):
        assert options_of({"options": column}, "options") == ("a", "b")
    assert options_of({"options": None}, "options", needed=False) == ()
    with pytest.raises(Refused, match="'options' is not a list"):
        options_of({"options": "a or b"}, "options")
