"""Forms that somebody filled in, by machine or by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet, Writing
from corpus.rendered.people import address, code, company, day, email, person, telephone, town
from corpus.rendered.style import Style, hand, style
from corpus.rendered.words import JOBS, LANGUAGES, THINGS, WEEKDAYS

TITLES = {
    "Membership Application": ("club", ("Name", "Address", "Town", "Telephone", "Born on", "Job", "Meets on")),
    "Parcel Claim": ("post", ("Sender", "Town", "Parcel number", "Contents", "Pieces", "Posted on", "Telephone")),
    "Library Card": ("library", ("Name", "Card number", "Address", "Telephone", "Valid until", "Languages")),
    "Visitor Record": ("office", ("Visitor", "Company", "Visits", "Date", "Arrived at", "Left at", "Badge")),
    "Repair Order": (
        "workshop",
        ("Customer", "Order number", "Article", "Pieces", "Received on", "Ready on", "Telephone"),
    ),
    "Course Registration": ("school", ("Student", "Course", "Starts on", "Room", "Teacher", "Fee paid on")),
    "Purchase Order": (
        "company",
        ("Ordered by", "Supplier", "Order number", "Article", "Pieces", "Deliver to", "Date"),
    ),
    "Travel Request": ("office", ("Name", "Job", "From", "To", "Leaves on", "Returns on", "Approved by")),
    "Test Record": ("workshop", ("Tested by", "Article", "Serial number", "Date", "Weight in grams", "Room")),
    "Delivery Note": ("company", ("Supplier", "Received by", "Order number", "Article", "Pieces", "Date", "Gate")),
}
"""Title -> the kind of place it belongs to, and its fields."""

TICKS = {
    "club": ("Newsletter", "Sports", "Choir", "Chess"),
    "post": ("Insured", "Fragile", "Opened", "Wet"),
    "library": ("Adult", "Child", "Student", "Guest"),
    "office": ("Urgent", "Signed", "Copied", "Car park"),
    "workshop": ("Guarantee", "Cleaned", "Tested", "Painted"),
    "school": ("Morning", "Evening", "Beginner", "Advanced"),
    "company": ("Paid", "Complete", "Damaged", "Express"),
}
"""Kind of place -> boxes that may be ticked."""

NAMES = (
    "Name",
    "Sender",
    "Visitor",
    "Visits",
    "Customer",
    "Student",
    "Teacher",
    "Ordered by",
    "Approved by",
    "Tested by",
    "Received by",
)
DAYS = (
    "Born on",
    "Posted on",
    "Valid until",
    "Date",
    "Received on",
    "Ready on",
    "Starts on",
    "Fee paid on",
    "Leaves on",
    "Returns on",
)
TOWNS = ("Town", "From", "To", "Deliver to")
CODES = ("Parcel number", "Card number", "Order number", "Serial number")


@dataclass(frozen=True, slots=True)
class Form:
    """Fields of a form and the values filled in."""

    house: str
    title: str
    number: str
    fields: tuple[tuple[str, str], ...]
    ticks: tuple[tuple[str, bool], ...]


def form(lot: Lot) -> Sheet:
    """A form with its questions."""
    facts = _facts(lot)
    look = style(lot, 14, 17)
    by_hand = lot.chance(55)
    writing: Writing = hand(lot, look.size + 3) if by_hand else _other_face(lot, look)
    paper = _written(lot, facts, look, writing)
    return Sheet("form", facts, paper, tuple(_questions(facts)), "hand" if by_hand else look.face)


def _other_face(lot: Lot, look: Style) -> Writing:
    return Style(lot.one(("mono", look.face)), look.size, look.sharp).plain


def value(lot: Lot, label: str) -> str:
    """Something to fill in behind a label, but for days: those of a form follow one another."""
    if label in NAMES:
        return person(lot)
    if label in TOWNS:
        return town(lot)
    if label in CODES:
        return code(lot)
    others: dict[str, Callable[[], str]] = {
        "Address": lambda: address(lot),
        "Telephone": lambda: telephone(lot),
        "Job": lambda: lot.one(JOBS).capitalize(),
        "Meets on": lambda: lot.one(WEEKDAYS),
        "Contents": lambda: lot.one(THINGS).capitalize(),
        "Article": lambda: lot.one(THINGS).capitalize(),
        "Course": lambda: lot.one(LANGUAGES),
        "Languages": lambda: " and ".join(lot.some(LANGUAGES, 2)),
        "Pieces": lambda: str(lot.between(2, 400)),
        "Room": lambda: str(lot.between(1, 499)),
        "Badge": lambda: str(lot.between(100, 999)),
        "Gate": lambda: str(lot.between(1, 40)),
        "Weight in grams": lambda: str(lot.between(100, 9999)),
        "Company": lambda: company(lot),
        "Supplier": lambda: company(lot),
        "Arrived at": lambda: f"{lot.between(7, 11)}:{lot.between(0, 59):02d}",
        "Left at": lambda: f"{lot.between(12, 18)}:{lot.between(0, 59):02d}",
        "Email": lambda: email(lot, person(lot)),
    }
    return others[label]()


def _facts(lot: Lot) -> Form:
    title = lot.one(sorted(TITLES))
    place, labels = TITLES[title]
    kept = [label for label in labels if label == labels[0] or lot.chance(85)]
    ticks = tuple((label, lot.chance(45)) for label in lot.some(TICKS[place], lot.between(2, 4)))
    days = iter(sorted((day(lot) for _ in DAYS), key=lambda one: one.iso))
    fields = tuple((label, str(next(days)) if label in DAYS else value(lot, label)) for label in kept)
    return Form(company(lot), title, code(lot), fields, ticks if lot.chance(70) else ())


def _written(lot: Lot, facts: Form, look: Style, writing: Writing) -> Paper:
    labels = max(look.plain.length(label) for label, _ in facts.fields)
    values = max(writing.length(text) for _, text in facts.fields)
    heading = look.large(1.4).length(facts.title) + 36
    paper = look.paper(min(760, max(380, labels + values + 90, heading)), margin=lot.between(20, 28))
    side = "left" if lot.chance(50) else "middle"
    paper.line(facts.house, look.plain, side=side)  # type: ignore[arg-type]
    paper.line(facts.title, look.large(1.4), side=side)  # type: ignore[arg-type]
    paper.line(f"No. {facts.number}", look.small, side=side)  # type: ignore[arg-type]
    paper.skip(10)
    boxed = lot.chance(50)
    column = paper.margin + labels + 18
    for label, text in facts.fields:
        height = round(writing.size * 1.25) + 10
        base = paper.y + height - 9
        shown = label + (":" if not boxed else "")
        paper.put(paper.margin + (5 if boxed else 0), base, shown, look.plain)
        paper.put(column + 6, base, text, writing)
        paper.note(f"{shown} {text}")
        right = paper.width - paper.margin
        if boxed:
            paper.pen.rectangle((paper.margin, paper.y, right, paper.y + height), outline=paper.ink)
            paper.pen.line((column, paper.y, column, paper.y + height), fill=paper.ink)
        else:
            paper.pen.line((column, base + 5, right, base + 5), fill=paper.ink)
        paper.y += height + (0 if boxed else 4)
    paper.skip(12)
    for label, ticked in facts.ticks:
        _tick(paper, label, ticked, look)
    paper.cut()
    return paper


def _tick(paper: Paper, label: str, ticked: bool, look: Style) -> None:
    side, top = look.size, paper.y + 3
    left = paper.margin
    paper.pen.rectangle((left, top, left + side, top + side), outline=paper.ink)
    if ticked:
        paper.pen.line((left + 3, top + 3, left + side - 3, top + side - 3), fill=paper.ink, width=2)
        paper.pen.line((left + 3, top + side - 3, left + side - 3, top + 3), fill=paper.ink, width=2)
    paper.put(left + side + 10, top + side - 1, label, look.plain)
    paper.note(f"[{'x' if ticked else ' '}] {label}")
    paper.y += side + 10


def _questions(facts: Form) -> list[Question]:
    asked = [
        Question("title", (), "What is the title of this form?", facts.title),
        Question("house", (), "Which company's form is this?", facts.house),
        Question("number", (), "What is the number of the form?", facts.number),
    ]
    for label, text in facts.fields:
        asked.append(Question("field", (label,), f'What is written in the field "{label}"?', text))
        asked.append(Question("field", (label,), f'What is the entry for "{label}"?', text))
    for label, ticked in facts.ticks:
        asked.append(Question("ticked", (label,), f'Is the box "{label}" ticked?', "Yes" if ticked else "No"))
    count = sum(ticked for _, ticked in facts.ticks)
    if facts.ticks:
        asked.append(Question("ticks", (), "How many boxes are ticked?", str(count)))
    if count == 1:
        (only,) = (label for label, ticked in facts.ticks if ticked)
        asked.append(Question("only", (), "Which box is ticked?", only))
    return asked
