"""Text to be written down as it stands: by hand and in print, from a word to a paragraph."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered.fonts import FACES, Print
from corpus.rendered.letters import PAD, PENS, note, story
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Sheet, Writing
from corpus.rendered.people import (
    address,
    code,
    company,
    day,
    email,
    money,
    person,
    street,
    telephone,
    town,
)
from corpus.rendered.rows import Row, instruct, picture, rows
from corpus.rendered.street import PAIRS
from corpus.rendered.style import hand
from corpus.rendered.texts import BUSINESS, STORY, paragraph

LINE_BY_LINE = (
    "Transcribe the text. Keep the line breaks.",
    "Write down the text of this picture line by line.",
    "Copy the text, with a new line where the picture has one.",
    "What is written here? Give it line by line.",
    "Transcribe each line of the picture.",
    "Type out this text and keep its lines.",
)
IN_ONE_LINE = (
    "Transcribe the text in one line.",
    "What is written here? Answer in one line.",
    "Read the text aloud.",
    "Write down the text, without line breaks.",
    "Copy the text of this picture into one line.",
    "Which text does the picture show? Put it all on one line.",
)
ONE_LINE = (
    "Transcribe the text.",
    "What is written here?",
    "Write down the text of this picture.",
    "Copy this line of text.",
    "Read the text.",
    "Type out what the picture says.",
)


def make_transcription(split: str, count: int, seed: int) -> Iterator[Row]:
    """Pictures of text, and the text."""
    return rows("transcription", split, count, seed, _row)


def _row(lot: Lot) -> Row:
    sheet = lot.one(KINDS)(lot)
    lines = sheet.text.split("\n")
    if len(lines) == 1:
        said = lot.one(ONE_LINE), lines[0]
    elif sheet.layout == "note" or lot.chance(50):
        said = lot.one(LINE_BY_LINE), sheet.text
    else:
        said = lot.one(IN_ONE_LINE), " ".join(lines)
    return instruct(picture(lot, sheet.paper), [said], "transcription")


def scrap(lot: Lot) -> Sheet:
    """A word or a few: a name, a place, a date, a number."""
    text = lot.draw(lambda: lot.one(SCRAPS)(lot))
    by_hand = lot.chance(50)
    writing: Writing = (
        hand(lot, lot.between(20, 34)) if by_hand else Print(lot.one(PRINTED), lot.between(16, 34), lot.chance(40))
    )
    return _card(lot, "scrap", text, writing, writing.length(text) + 20)


def line(lot: Lot) -> Sheet:
    """A sentence or two, on coloured paper."""
    text = paragraph(lot, lot.one((BUSINESS, STORY)), lot.between(1, 2))
    writing: Writing = (
        hand(lot, lot.between(18, 24)) if lot.chance(60) else Print(lot.one(PRINTED), lot.between(15, 20))
    )
    return _card(lot, "line", text, writing, lot.between(320, 560))


def _card(lot: Lot, layout: str, text: str, writing: Writing, width: int) -> Sheet:
    if lot.chance(40):
        paper = Paper(width + 44, margin=22)
    elif isinstance(writing, Print):
        ground, ink = lot.one(PAIRS)
        paper = Paper(width + 44, margin=22, ground=ground)
        paper.ink = ink
    else:
        paper = Paper(width + 44, margin=22, ground=lot.one(PAD))
        paper.ink = lot.one(PENS)
    paper.paragraph(text, writing, leading=1.6)
    paper.skip(6)
    paper.cut()
    return Sheet(layout, text, paper)


PRINTED = tuple(sorted(set(FACES) - {"marker"}))
"""Typefaces in which small and capital letters differ."""
SCRAPS: tuple[Callable[[Lot], str], ...] = (
    person,
    person,
    town,
    address,
    street,
    company,
    code,
    telephone,
    lambda lot: str(day(lot)),
    lambda lot: f"${money(lot.between(100, 99999))}",
    lambda lot: email(lot, person(lot)),
)
KINDS: tuple[Callable[[Lot], Sheet], ...] = (
    scrap,
    scrap,
    line,
    line,
    line,
    lambda lot: story(lot, by_hand=True),
    lambda lot: story(lot, by_hand=True),
    lambda lot: story(lot, by_hand=False),
    note,
)
