"""Rendered things in a few sentences: what they are, and the facts that matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered.charts import Chart, chart
from corpus.rendered.food_chains import Web, food_web
from corpus.rendered.forms import Form, form
from corpus.rendered.letters import Letter, Note, letter, note
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Sheet
from corpus.rendered.receipts import Receipt, receipt
from corpus.rendered.resumes import Resume, resume
from corpus.rendered.rows import Row, instruct, picture, rows
from corpus.rendered.sign_words import described
from corpus.rendered.signs import sign
from corpus.rendered.tables import Table, table
from corpus.rendered.texts import listed

PROMPTS = (
    "Describe this picture.",
    "What does this picture show? Answer in a few sentences.",
    "Summarise what you see.",
    "Describe this in full sentences.",
    "Explain to somebody who cannot see it what this is and says.",
    "Give a short summary of this picture.",
    "What is this, and what does it say?",
    "Write a few sentences about this picture.",
)
AS_TABLE = (
    "Write this as a table in Markdown.",
    "Give the numbers of this picture as a Markdown table.",
    "Convert this into a Markdown table.",
)


def make_description(split: str, count: int, seed: int) -> Iterator[Row]:
    """Pictures of text, described; tables and charts sometimes as Markdown."""
    return rows("description", split, count, seed, _row)


def _row(lot: Lot) -> Row:
    sheet = lot.one(MAKERS)(lot)
    if isinstance(sheet.facts, Table) and lot.chance(60):
        said = lot.one(AS_TABLE), markdown(sheet.facts)
    elif isinstance(sheet.facts, Chart) and sheet.facts.labelled and lot.chance(30):
        said = lot.one(AS_TABLE), markdown(sheet.facts.table)
    else:
        said = lot.one(PROMPTS), description(sheet)
    return instruct(picture(lot, sheet.paper), [said], "description")


MAKERS: tuple[Callable[[Lot], Sheet], ...] = (
    chart,
    chart,
    table,
    receipt,
    letter,
    form,
    note,
    resume,
    food_web,
    sign,
    sign,
)


def markdown(facts: Table) -> str:
    """The table as Markdown has it."""
    lines = facts.lines()
    ruler = ("---",) * len(lines[0])
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ruler, *lines[1:]))


def description(sheet: Sheet) -> str:
    """Sentences about a sheet, from its facts alone."""
    facts = sheet.facts
    for kind, tell in TELLERS.items():
        if isinstance(facts, kind):
            return " ".join(tell(facts))
    return " ".join(described(sheet.layout, facts))


def _chart(facts: Chart) -> Iterator[str]:
    subject = facts.table.topic
    kind = {"bars": "bar chart", "sideways": "bar chart with bars that lie", "lines": "line chart"}[facts.kind]
    yield f'This is a {kind}. Its title is "{subject.title}".'
    many = f"The axis counts {subject.unit.lower()}."
    if facts.kind == "lines":
        yield f"{many} It runs from {subject.columns[0]} to {subject.columns[-1]}."
        for row, values in zip(subject.rows, facts.table.cells, strict=True):
            pairs = zip(subject.columns, values, strict=True)
            numbers = listed([f"{facts.table.shown(value)} ({name})" for name, value in pairs])
            yield f"The numbers of {row} are {numbers}."
        return
    yield many
    for column in subject.columns:
        rows_of = facts.table.column(column).items()
        numbers = listed([f"{row} ({facts.table.shown(value)})" for row, value in rows_of])
        yield f"For {column} there are {numbers}."


def _table(facts: Table) -> Iterator[str]:
    subject = facts.topic
    yield f'This is a table with the title "{subject.title}".'
    yield f"It lists {len(subject.rows)} {subject.many}: {listed(subject.rows)}."
    columns = subject.columns
    yield f"Its columns are {listed(columns)}." if len(columns) > 1 else f"Its one column is {columns[0]}."
    first = columns[0]
    values = facts.column(first)
    high, low = max(values.values()), min(values.values())
    yield f"In the column {first} the numbers go from {facts.shown(low)} to {facts.shown(high)}."


def _receipt(facts: Receipt) -> Iterator[str]:
    yield f"This is a receipt of {facts.shop} in {facts.town} from {facts.day}, {facts.time}."
    bought = listed([f"{item.count} x {item.name}" if item.count > 1 else item.name for item in facts.items])
    yield f"It lists {bought}."
    yield f"The total is {facts.amount(facts.total)}, paid {'in cash' if facts.paid else 'by card'}."


def _letter(facts: Letter) -> Iterator[str]:
    yield f"This is a letter of {facts.house} to {facts.to} in {facts.to_town}, written on {facts.day}."
    yield f'Its subject is "{facts.subject}".'
    yield f"It is signed by {facts.sender}, {facts.job.lower()}."


def _form(facts: Form) -> Iterator[str]:
    yield f'This is a form of {facts.house} with the title "{facts.title}" and the number {facts.number}.'
    yield f"It says: {'; '.join(f'{label} {value}' for label, value in facts.fields)}."
    ticked = [label for label, cross in facts.ticks if cross]
    if facts.ticks:
        yield f"Ticked {'are' if len(ticked) > 1 else 'is'} {listed(ticked)}." if ticked else "No box is ticked."


def _note(facts: Note) -> Iterator[str]:
    yield f'This is a list by hand, headed "{facts.title}".'
    yield f"It has {len(facts.items)} things on it: {listed(facts.items)}."
    done = [item for item, ticked in zip(facts.items, facts.done, strict=True) if ticked]
    yield f"Ticked: {listed(done)}." if done else "Nothing is ticked."


def _resume(facts: Resume) -> Iterator[str]:
    now, school = facts.experience[0], facts.education[0]
    yield f"This is the resume of {facts.name} from {facts.town}."
    yield f"The latest post is that of {facts.job.lower()} at {now.company}, since {now.since}."
    degree = f"{'an' if school.degree.startswith('M') else 'a'} {school.degree} in {school.subject}"
    yield f"The last degree is {degree} from {school.school} in {school.year}."
    yield (
        f"Languages are {listed(facts.languages)}."
        if len(facts.languages) > 1
        else f"The language is {facts.languages[0]}."
    )
    yield f"Skills are {listed(facts.skills)}."


def _web(facts: Web) -> Iterator[str]:
    yield f"This diagram shows who eats whom in the {facts.place}."
    for name in facts.names:
        if foods := facts.foods(name):
            yield f"The {name} eats the {listed(sorted(foods))}."


TELLERS: dict[type, Callable[..., Iterator[str]]] = {
    Chart: _chart,
    Table: _table,
    Receipt: _receipt,
    Letter: _letter,
    Form: _form,
    Note: _note,
    Resume: _resume,
    Web: _web,
}
"""The kind of facts -> what tells them in sentences."""
