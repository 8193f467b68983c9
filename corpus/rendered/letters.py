"""Letters: typed, or written by hand."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.rendered.fonts import Hand
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet, Side, Writing
from corpus.rendered.people import Day, address, code, company, day, person, telephone, town
from corpus.rendered.style import Style, hand, style
from corpus.rendered.texts import BUSINESS, NOTES, STORY, different, paragraph, paragraphs
from corpus.rendered.words import JOBS, THINGS, WEEKDAYS

SUBJECTS = (
    "Delivery of {things}",
    "Repair of {things}",
    "Your order of {things}",
    "Price list for {things}",
    "Lost {things}",
    "Meeting about {things}",
    "Contract for {things}",
    "Storage of {things}",
)
GREETINGS = ("Dear {name},", "Good day {name},", "Dear Colleague,", "To {name}:")
SIDES: tuple[Side, ...] = ("left", "middle", "right")
ENDINGS = ("Yours sincerely,", "Kind regards,", "With best wishes,", "Yours truly,")


@dataclass(frozen=True, slots=True)
class Letter:
    """Content of a letter: sender, recipient and text."""

    house: str
    address: str
    town: str
    phone: str
    day: Day
    reference: str
    to: str
    to_address: str
    to_town: str
    subject: str
    body: tuple[str, ...]
    sender: str
    job: str


def letter(lot: Lot) -> Sheet:
    """A letter of a firm with its questions."""
    look = style(lot, 14, 18)
    facts = Letter(
        house=company(lot),
        address=address(lot),
        town=town(lot),
        phone=telephone(lot),
        day=day(lot),
        reference=code(lot),
        to=person(lot),
        to_address=address(lot),
        to_town=town(lot),
        subject=lot.one(SUBJECTS).format(things=lot.one(THINGS)),
        body=paragraphs(lot, BUSINESS, [lot.between(2, 3) for _ in range(lot.between(1, 3))]),
        sender=person(lot),
        job=lot.one(JOBS).capitalize(),
    )
    paper = _written(lot, facts, look)
    return Sheet("letter", facts, paper, tuple(_questions(facts)), look.face)


def _written(lot: Lot, facts: Letter, look: Style) -> Paper:
    paper = look.paper(lot.between(520, 760), margin=lot.between(36, 56))
    paper.line(facts.house, look.large(1.5), side=lot.one(SIDES))
    side: Side = lot.one(SIDES)
    paper.line(f"{facts.address}, {facts.town}", look.small, side=side)
    paper.line(f"Telephone {facts.phone}", look.small, side=side)
    paper.rule()
    paper.skip(12)
    for text in (facts.to, facts.to_address, facts.to_town):
        paper.line(text, look.plain)
    paper.skip(10)
    paper.line(str(facts.day), look.plain, side=lot.one(("left", "right")))
    paper.line(f"Our reference: {facts.reference}", look.plain)
    paper.skip(8)
    paper.line(facts.subject, look.bold)
    paper.skip(8)
    paper.line(lot.one(GREETINGS).format(name=facts.to), look.plain)
    paper.skip(6)
    for text in facts.body:
        paper.paragraph(text, look.plain)
        paper.skip(8)
    paper.line(lot.one(ENDINGS), look.plain)
    paper.skip(4)
    paper.line(facts.sender, hand(lot, look.size + 6), leading=1.7)
    paper.line(facts.job, look.plain)
    paper.cut(least=lot.one((0, 0, round(paper.width * 1.25))))
    return paper


def _questions(facts: Letter) -> list[Question]:
    return [
        Question("sender", (), "Who signed this letter?", facts.sender),
        Question("to", (), "To whom is the letter addressed?", facts.to, also=(f"to {facts.to}",)),
        Question("day", (), "What is the date of the letter?", str(facts.day)),
        Question("house", (), "Which company sent the letter?", facts.house),
        Question("subject", (), "What is the subject of the letter?", facts.subject),
        Question("reference", (), "What is the reference number of this letter?", facts.reference),
        Question("to_town", (), f"In which town does {facts.to} live?", facts.to_town),
        Question("phone", (), "What is the telephone number of the company?", facts.phone),
        Question("job", (), f"What is the job of {facts.sender}?", facts.job),
        Question("address", (), "What is the street address of the sender?", facts.address),
    ]


@dataclass(frozen=True, slots=True)
class Story:
    """A page of a book, or of somebody's own hand."""

    title: str
    number: int
    body: tuple[str, ...]


def story(lot: Lot, *, by_hand: bool) -> Sheet:
    """A page of plain text; there is nothing to ask about it but what it says."""
    look = style(lot, 15, 18)
    writing: Writing = hand(lot, lot.between(18, 22)) if by_hand else look.plain
    sentences = (2, 3) if by_hand else (3, 5)
    facts = Story(
        title=paragraph(lot, STORY, 1).rstrip(".") if lot.chance(20) else f"Chapter {lot.between(1, 30)}",
        number=lot.between(2, 380),
        body=paragraphs(lot, STORY, [lot.between(*sentences) for _ in range(lot.between(1, 2 if by_hand else 3))]),
    )
    paper = look.paper(lot.between(430 if by_hand else 500, 680), margin=lot.between(30, 50))
    if by_hand and lot.chance(50):
        _ruled(paper, round(writing.size * 1.6))
    if not by_hand:
        paper.paragraph(facts.title, look.large(1.2))
        paper.skip(10)
    for text in facts.body:
        paper.paragraph(text, writing, leading=1.6 if by_hand else 1.4)
        paper.skip(0 if by_hand else 8)
    if not by_hand:
        paper.line(str(facts.number), look.small, side="middle")
    paper.cut()
    return Sheet("handwriting" if by_hand else "book", facts, paper, (), "hand" if by_hand else look.face)


def _ruled(paper: Paper, step: int) -> None:
    """Thin lines as of an exercise book."""
    for y in range(paper.margin + step - step // 4, paper.height, step):
        paper.pen.line((12, y, paper.width - 12, y), fill=paper.ink if paper.pen.fontmode == "1" else 170)


@dataclass(frozen=True, slots=True)
class Note:
    """A list of things to do, by hand, with some of them struck off."""

    title: str
    items: tuple[str, ...]
    done: tuple[bool, ...]


PAD = ((255, 244, 170), (215, 236, 250), (250, 224, 230), (226, 244, 214), (255, 255, 255))
"""Colours of the paper of a note."""
PENS = ((25, 35, 110), (30, 30, 30), (120, 30, 30), (20, 80, 60))


def note(lot: Lot) -> Sheet:
    """A list on coloured paper, with its questions."""
    items = tuple(item[0].lower() + item[1:] for item in different(lot, NOTES, lot.between(3, 6)))
    title = lot.one(("To do", "List", "This week", "Do not forget", lot.one(WEEKDAYS)))
    facts = Note(title, items, tuple(lot.chance(40) for _ in items))
    writing = hand(lot, lot.between(19, 24))
    width = max(writing.length(text) for text in (title, *items)) + 95
    paper = Paper(width, margin=24, ground=lot.one(PAD))
    paper.ink = lot.one(PENS)
    paper.line(title, writing, leading=1.9)
    for item, done in zip(items, facts.done, strict=True):
        _item(paper, item, done, writing)
    paper.cut()
    return Sheet("note", facts, paper, tuple(_asked(facts)), "hand")


def _item(paper: Paper, item: str, done: bool, writing: Hand) -> None:
    """An item behind a box, which has a cross in it if the item is done."""
    base, side = paper.y + round(writing.size * 1.1), round(writing.size * 0.75)
    left, top = paper.margin, base - side
    paper.pen.rectangle((left, top, left + side, base), outline=paper.ink)
    if done:
        paper.pen.line((left + 3, top + 3, left + side - 3, base - 3), fill=paper.ink, width=2)
        paper.pen.line((left + 3, base - 3, left + side - 3, top + 3), fill=paper.ink, width=2)
    paper.put(left + side + 14, base, item, writing)
    paper.note(f"[{'x' if done else ' '}] {item}")
    paper.y += round(writing.size * 1.8)


def _asked(facts: Note) -> list[Question]:
    done = sum(facts.done)
    asked = [
        Question("items", (), "How many things are on the list?", str(len(facts.items))),
        Question("done", (), "How many things on the list are ticked?", str(done)),
        Question("first", (), "What is the first thing on the list?", facts.items[0]),
        Question("last", (), "What is the last thing on the list?", facts.items[-1]),
        Question("heading", (), "What does the heading of the list say?", facts.title),
    ]
    for item, ticked in zip(facts.items, facts.done, strict=True):
        asked.append(Question("ticked", (item,), f'Is "{item}" ticked?', "Yes" if ticked else "No"))
    return asked
