"""Answers are derived again, from the facts and the visible text, by other means than the makers use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest

from corpus.rendered import benchmarks, text_only
from corpus.rendered.charts import chart
from corpus.rendered.food_chains import LETTERS, food_web, make_food_chains
from corpus.rendered.forms import form
from corpus.rendered.habitats import HABITATS
from corpus.rendered.letters import letter, note
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question, Sheet
from corpus.rendered.receipts import receipt
from corpus.rendered.resumes import resume
from corpus.rendered.rows import choose
from corpus.rendered.signs import sign
from corpus.rendered.tables import table
from corpus.rendered.words import MONTHS, WEEKDAYS

CALCULATION = re.compile(r"(\$?[\d.]+(?: [-+x] \$?[\d.]+)+) = (\$?[\d.]+\d|\d)")


def sheets(make, count: int = 12) -> Iterator[Sheet]:
    yield from (make(Lot("answers", "train", number, 5)) for number in range(count))


def number(text: str) -> Fraction:
    return Fraction(text.strip("$."))


def reckoned(text: str) -> Fraction:
    """The value of a sum, difference or product as it is written out."""
    first, *rest = re.split(r" ([-+x]) ", text)
    value = number(first)
    for sign_of, other in zip(rest[::2], rest[1::2], strict=True):
        value = {"+": value + number(other), "-": value - number(other), "x": value * number(other)}[sign_of]
    return value


def holds(question: Question) -> int:
    """Count the calculations in the steps of an answer; all must be right, and the last one is the answer."""
    found = CALCULATION.findall(question.steps)
    for left, right in found:
        assert reckoned(left) == number(right), question.steps
    if found and re.fullmatch(r"\$?[\d.]+", question.answer):
        assert number(found[-1][1]) == number(question.answer), question
    return len(found)


@pytest.mark.parametrize("make", [table, chart, receipt], ids=lambda make: make.__name__)
def test_steps_are_right(make):
    count = sum(holds(question) for sheet in sheets(make) for question in sheet.questions if question.steps)
    assert count > 20


def columns_of(sheet: Sheet) -> dict[tuple[str, str], Fraction]:
    """The numbers of a table, read from its text."""
    lines = sheet.text.split("\n")
    columns = sheet.facts.topic.columns
    start = next(place for place, line in enumerate(lines) if line.endswith(" ".join(columns)))
    found = {}
    for line in lines[start + 1 : start + 1 + len(sheet.facts.topic.rows)]:
        *name, numbers = line.split(" ")[: -len(columns)], line.split(" ")[-len(columns) :]
        found |= {(" ".join(name[0]), column): number(value) for column, value in zip(columns, numbers, strict=True)}
    return found


def test_answers_about_tables_follow_from_the_text():
    checked = set()
    for sheet in sheets(table, 20):
        cells = columns_of(sheet)
        for one in sheet.questions:
            expected = from_table(one, cells)
            if expected is not None:
                checked.add(one.form)
                assert (number(one.answer) if isinstance(expected, Fraction) else one.answer) == expected, one
    assert checked >= {"cell", "most", "least", "above", "sum", "double", "tenth more", "difference", "higher", "row"}


def from_table(one: Question, cells: dict[tuple[str, str], Fraction]) -> Fraction | str | None:
    about = one.about
    if one.form == "cell":
        return cells[about[0], about[1]]
    if one.form in ("most", "least"):
        column = {name: value for (name, column), value in cells.items() if column == about[0]}
        return (max if one.form == "most" else min)(column, key=lambda name: column[name])
    if one.form == "above":
        return Fraction(sum(value > int(about[1]) for (_, column), value in cells.items() if column == about[0]))
    if one.form == "row":
        return sum((value for (name, _), value in cells.items() if name == about[0]), Fraction(0))
    if one.form == "rows":
        return Fraction(len({name for name, _ in cells}))
    if len(about) != 3:
        return None
    first, second = cells[about[0], about[2]], cells[about[1], about[2]]
    if one.form == "higher":
        return "Yes" if first > second else "No"
    factor = {"sum": Fraction(1), "double": Fraction(2), "tenth more": Fraction(11, 10)}
    return first - second if one.form == "difference" else (first + second) * factor[one.form]


def test_a_receipt_adds_up_as_it_is_printed():
    for sheet in sheets(receipt, 20):
        amounts = {}
        for line in sheet.text.split("\n"):
            *words, last = line.split(" ")
            if re.fullmatch(r"\$?\d+\.\d\d", last):
                amounts[" ".join(words)] = number(last)
        given = {one.form: one.answer for one in sheet.questions}
        total = number(given["total"])
        items = [value for name, value in amounts.items() if any(item.name in name for item in sheet.facts.items)]
        if "tax" in given:
            assert sum(items) == number(given["subtotal"]) and total == sum(items) + number(given["tax"])
            exact = sum(items) * sheet.facts.tax_rate / 100
            assert abs(exact - number(given["tax"])) <= Fraction(1, 200)
        else:
            assert sum(items) == total
        if "change" in given:
            assert number(given["paid"]) - total == number(given["change"])
        assert len(items) == int(given["lines"])


def test_charts_show_what_is_asked():
    for sheet in sheets(chart, 20):
        facts = sheet.facts
        for row in facts.table.cells:
            for value in row:
                assert 0 < value // 100 < facts.top and value % 100 == 0
                half = facts.step // 2 if facts.step % 2 == 0 else facts.step
                assert facts.labelled or (value // 100) % half == 0
        for one in sheet.questions:
            if one.form in ("peak", "low"):
                row = facts.table.topic.rows.index(one.about[0])
                values = facts.table.cells[row]
                place = facts.table.topic.columns.index(one.answer)
                assert (
                    values[place] == (max if one.form == "peak" else min)(values) and values.count(values[place]) == 1
                )
            if one.form == "course":
                before, after = (facts.table.at(one.about[0], column) for column in one.about[1:])
                assert (after > before) == (one.answer == "It rose") and after != before


def test_food_webs_are_true_to_what_is_eaten():
    for sheet in sheets(food_web, 25):
        facts = sheet.facts
        arrows = {(food, eater) for eater, foods in HABITATS[facts.place].items() for food in foods}
        arrows = {(food, eater) for food, eater in arrows if {food, eater} <= set(facts.names)}
        names = {name: {word for pair in arrows for word in pair if name in pair} for name in facts.names}
        assert all(names.values()), "nothing stands alone"
        for one in sheet.questions:
            said = set(re.split(r", | and ", one.answer.lower()))
            if one.form == "eats":
                assert said == {food for food, eater in arrows if eater == one.about[0]}
            elif one.form == "eaten":
                assert said == {eater for food, eater in arrows if food == one.about[0]}
            elif one.form == "arrows":
                assert int(one.answer) == len(arrows)
            elif one.form == "top":
                assert said == set(facts.names) - {food for food, _ in arrows}
            elif one.form == "chain":
                chain = one.answer.lower().split(", ")
                assert set(pairwise(chain)) <= arrows


def test_the_letter_of_a_choice_is_that_of_an_answer():
    letters = set()
    for row in make_food_chains("train", 30, 0):
        for said in row["texts"]:
            if said["assistant"].startswith("Answer: "):
                choices = re.findall(r"^([A-D])\. (.+)$", said["user"], re.MULTILINE)
                assert len({choice for _, choice in choices}) == len(LETTERS)
                letters.add(said["assistant"].removeprefix("Answer: "))
    assert letters == set(LETTERS)


@pytest.mark.parametrize("make", [sign, form, letter, resume, receipt, note], ids=lambda make: make.__name__)
def test_what_is_read_stands_in_the_picture(make):
    """Answers that are not counted or reckoned are words of the picture."""
    counted = {"Yes", "No", "Left", "Right", "Straight on", "It is free", "By card"}
    read = 0
    for sheet in sheets(make, 30):
        text = " ".join(sheet.text.split()).lower()
        for one in sheet.questions:
            if one.steps or one.answer in counted or one.answer.isdigit():
                continue
            assert one.answer.lower() in text, (one, text)
            read += 1
    assert read > 10


def test_questions_that_were_chosen_differ():
    for sheet in sheets(form):
        chosen = choose(Lot("choose", "train", 0, 0), sheet.questions, 99)
        assert len({(one.form, one.about) for one in chosen}) == len(chosen)


def test_answers_of_ten_people_hold_nothing_wrong():
    lot = Lot("people", "test", 0, 0)
    given = benchmarks.answers(lot, Question("way", (), "Which way?", "Left", also=("to the left",)))
    assert len(given) == 10 and set(given) == {"Left", "to the left"} and given.count("Left") >= 7


def again(one: Question) -> str | None:
    """The answer to a question without a picture, from what it names."""
    words = one.about
    match one.form:
        case "sum":
            return str(int(words[0]) + int(words[1]))
        case "difference":
            return str(int(words[0]) - int(words[1]))
        case "product":
            return str(int(words[0]) * int(words[1]))
        case "remainder":
            return str(int(words[0]) % int(words[1]))
        case "per cent":
            return str(Fraction(int(words[0]) * int(words[1]), 100))
        case "tenth more":
            return str(Fraction(int(words[0]) * 11, 10))
        case "series":
            return str(2 * int(words[-1]) - int(words[-2]))
        case "largest" | "smallest":
            return str(sorted(map(int, words))[-1 if one.form == "largest" else 0])
        case "change":
            left = number(words[2]) - int(words[0]) * number(words[1])
            return f"${float(left):.2f}"
        case "clock":
            end = datetime.strptime(words[0], "%H:%M") + timedelta(minutes=int(words[1]))
            return f"{end.hour}:{end.minute:02d}"
        case "weekday":
            return (WEEKDAYS * 20)[WEEKDAYS.index(words[0]) + int(words[1])]
        case "month":
            return (MONTHS * 5)[MONTHS.index(words[0]) + int(words[1])]
        case "backwards":
            return "-".join(words[0].upper()[::-1])
        case "letters":
            return str(len(list(words[0])))
        case "vowels":
            return str(len(re.sub("[^aeiou]", "", words[0])))
        case "sorted":
            return ", ".join(sorted(words)).capitalize()
    return None


@pytest.mark.parametrize(
    "make", sorted(set(text_only.MAKERS), key=lambda make: make.__name__), ids=lambda make: make.__name__
)
def test_questions_without_a_picture_have_right_answers(make):
    for place in range(15):
        one = text_only.asked(Lot("text", ("train", "validation", "test")[place % 3], place, 0), make)
        expected = again(one)
        assert one.form in ("fact", "odd one") or one.answer == expected, one
        if one.form != "per cent":
            holds(one)


def test_every_fact_has_a_question_and_a_short_answer():
    for question, answer in text_only.FACTS:
        assert question.endswith("?") and 0 < len(answer) < 40
    assert len({question for question, _ in text_only.FACTS}) == len(text_only.FACTS) > 100
