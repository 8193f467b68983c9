"""The order in which a page is read."""

from __future__ import annotations

import random

import pypdfium2
import pytest

from lorgnette.data.sources.documents import page_text
from lorgnette.data.sources.pdf.layout import TextBox, read_page
from tests.data.sources.made import pdf

LEFT = [f"left column line {number} is about as wide as it" for number in range(12)]
RIGHT = [f"right column line {number} is about as wide as it" for number in range(12)]
TITLE = "A title that stands above both of the columns and is as wide as the page itself, or nearly so"
FOOT = "17"


def two_columns(start: float = 680) -> list[tuple[float, float, str]]:
    left = [(60.0, start - 12 * number, text) for number, text in enumerate(LEFT)]
    right = [(320.0, start - 12 * number, text) for number, text in enumerate(RIGHT)]
    return [line for pair in zip(left, right, strict=True) for line in pair]


def read(lines: list[tuple[float, float, str]], **options: object) -> str:
    document = pypdfium2.PdfDocument(pdf([lines], **options))  # type: ignore[arg-type]
    return page_text(document[0])


@pytest.mark.parametrize("order", ["rows", "reversed", "shuffled"])
def test_columns_are_read_one_after_the_other_however_they_are_drawn(order):
    lines = [(60.0, 730.0, TITLE), *two_columns(), (300.0, 40.0, FOOT)]
    if order == "reversed":
        lines.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(lines)
    assert read(lines).split("\n") == [TITLE, "", *LEFT, *RIGHT, "", FOOT]


def test_a_line_across_parts_what_is_above_from_what_is_below():
    across = "and this line goes over the whole breadth of the page, from the one side of it to the other"
    lines = [*two_columns(700), (60.0, 540.0, across), *two_columns(520)]
    assert [line for line in read(lines).split("\n") if line] == [*LEFT, *RIGHT, across, *LEFT, *RIGHT]


def test_three_columns():
    columns = [[f"column {name} line {number} text here" for number in range(8)] for name in "abc"]
    lines = [
        (40.0 + 185 * place, 700.0 - 12 * number, column[number])
        for number in range(8)
        for place, column in enumerate(columns)
    ]
    assert [line for line in read(lines).split("\n") if line] == [line for column in columns for line in column]


def test_rows_of_a_table_are_read_across():
    table = [("Item", "Weight", "Price"), *((f"thing {n}", f"{n} kg", f"{n * 3}.50") for n in range(1, 9))]
    lines = [
        (60.0 + 150 * place, 700.0 - 14 * n, cell) for n, row in enumerate(table) for place, cell in enumerate(row)
    ]
    random.Random(1).shuffle(lines)
    assert read(lines).split("\n") == [" ".join(row) for row in table]


def test_paragraphs_are_parted_by_an_empty_line():
    first = [(60.0, 700.0 - 12 * number, f"A first paragraph goes on, line {number}.") for number in range(3)]
    second = [(60.0, 640.0 - 12 * number, f"A second paragraph goes on, line {number}.") for number in range(3)]
    indented = [(75.0, 604.0, "An indented line begins a third."), (60.0, 592.0, "It goes on.")]
    blocks = read([*first, *second, *indented]).split("\n\n")
    assert [len(block.split("\n")) for block in blocks] == [3, 3, 2]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_page_that_is_shown_turned_is_read_as_shown(turn):
    """Text that is drawn upright on a turned page is seen lying, and is still read line by line."""
    assert read([(60.0, 730.0, TITLE), *two_columns()], extra=f"/Rotate {turn}").split("\n") == [
        TITLE,
        "",
        *LEFT,
        *RIGHT,
    ]


def test_a_line_up_the_margin_comes_last():
    aside = "BT /F1 10 Tf 0 1 -1 0 30 200 Tm (stamp on the side) Tj ET"
    assert read([(60.0, 700.0, "The text of the page.")], content=aside) == "The text of the page.\n\nstamp on the side"


def test_text_outside_of_the_page_is_not_read():
    assert read([(60.0, 700.0, "seen"), (60.0, 900.0, "above"), (700.0, 300.0, "beside")]) == "seen"
    assert read([(60.0, 700.0, "cut"), (60.0, 300.0, "seen")], extra="/CropBox [0 0 612 400]") == "seen"


def test_ligatures_and_hyphens_are_letters_that_can_be_typed():
    boxes = [TextBox(text, 10.0 * place, 0, 10.0 * place + 10, 10) for place, text in enumerate("oﬃce")]
    assert read_page(boxes) == "oﬃce"  # what a character is called is decided where it is read
    assert "a hyphen-" in read([(60.0, 700.0, "at the end a hyphen-"), (60.0, 688.0, "ated word")])


@pytest.mark.parametrize("gap", [-120, -250, -600, -1500, -6000])
def test_no_character_is_lost_whatever_parts_the_words(gap):
    """The text layer in drawing order has the same characters: the slow oracle."""
    drawn = f"BT /F1 10 Tf 60 700 Td [(Package) {gap} (options) {gap} (and) {gap} (environments)] TJ ET"
    page = pypdfium2.PdfDocument(pdf([[(60.0, 600.0, "x")]], content=drawn))[0]
    whole = page.get_textpage().get_text_range()
    assert sorted("".join(page_text(page).split())) == sorted("".join(whole.split()))
    words = ["Package", "options", "and", "environments", "x"]
    assert page_text(page).split() == (words if gap < -150 else ["Packageoptionsandenvironments", "x"])


def test_words_are_parted_by_spaces_or_by_distance():
    def word(text: str, left: float, top: float = 0) -> list[TextBox]:
        return [TextBox(one, left + 5 * place, top, left + 5 * place + 5, top + 10) for place, one in enumerate(text)]

    space = [TextBox(" ", 20, 0, 20, 0)]
    assert read_page([*word("abcd", 0), *word("efg", 24)]) == "abcd efg"
    assert read_page([*word("abcd", 0), *space, *word("efg", 20.5)]) == "abcd efg"
    assert read_page([*word("abcd", 0), *word("efg", 20.5)]) == "abcdefg"
    assert read_page([]) == "" and read_page(space) == ""


@pytest.mark.parametrize(("turn", "matrix"), [(90, "0 1 -1 0"), (180, "-1 0 0 -1"), (270, "0 -1 1 0")])
def test_lines_that_stand_upright_on_a_turned_page_are_read_first(turn, matrix):
    place = {90: (300, 100), 180: (500, 300), 270: (300, 700)}[turn]
    shift = {90: (12, 0), 180: (0, -12), 270: (-12, 0)}[turn]
    drawn = " ".join(
        f"BT /F1 10 Tf {matrix} {place[0] + n * shift[0]} {place[1] + n * shift[1]} Tm ({text}) Tj ET"
        for n, text in [(1, "second line"), (0, "first line")]
    )
    shown = "first line\nsecond line" if turn != 180 else "second line\nfirst line"
    assert read([(60.0, 50.0, "lying")], content=drawn, extra=f"/Rotate {turn}") == f"{shown}\n\nlying"
