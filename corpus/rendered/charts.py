"""Bar charts and line charts, and what can be read off them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from corpus.rendered.chart_drawing import drawn
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question, Sheet
from corpus.rendered.rows import Row, about_sheet, rows
from corpus.rendered.table_topics import IN_TIME, topic
from corpus.rendered.tables import Table, reckoned
from corpus.rendered.words import COLOURS

Kind = Literal["bars", "sideways", "lines"]
STEPS = (5, 10, 20, 50, 100, 200)
"""Distances between the lines of an axis."""
CLEAR = tuple(colour for colour in sorted(COLOURS) if colour not in ("brown", "pink"))
"""Colours that nobody takes for one another."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Data of a chart: the numbers of a table. Bars stand for rows, in groups of columns; a line is a row."""

    kind: Kind
    table: Table
    step: int
    """Units between the lines of the axis."""
    labelled: bool
    """Each number stands at its bar or point; if not, all are on a line of the axis, or halfway between two."""
    colours: tuple[str, ...]
    """Of the lines, or of the columns of bars."""

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the series in the legend."""
        return self.table.topic.rows if self.kind == "lines" else self.table.topic.columns

    @property
    def top(self) -> int:
        """Upper end of the axis, in units: its first grid line above all numbers."""
        return (max(map(max, self.table.cells)) // 100 // self.step + 1) * self.step


def make_charts(split: str, count: int, seed: int) -> Iterator[Row]:
    """Charts with questions on their values."""
    return rows("charts", split, count, seed, lambda lot: about_sheet(lot, chart(lot), "charts", steps=50))


def chart(lot: Lot) -> Sheet:
    """A chart with its questions."""
    kind: Kind = lot.one(("bars", "sideways", "lines"))
    if kind == "lines":
        subject = topic(lot, (1, 3), (4, 6), IN_TIME)
    else:
        subject = topic(lot, (3, 6), (1, 1) if lot.chance(60) else (2, 2), IN_TIME)
    step = next((step for step in STEPS if step * 8 >= subject.most), STEPS[-1])
    labelled = lot.chance(50) and not (kind == "lines" and len(subject.rows) > 1)
    cells = tuple(tuple(100 * _value(lot, labelled, step, subject.most) for _ in subject.columns) for _ in subject.rows)
    table = Table(subject, cells, total=False)
    many = len(subject.rows) if kind == "lines" else len(subject.columns)
    facts = Chart(kind, table, step, labelled, tuple(lot.some(CLEAR, many)))
    return Sheet(kind, facts, drawn(lot, facts), tuple(_questions(lot, facts)))


def _value(lot: Lot, labelled: bool, step: int, most: int) -> int:
    """In units."""
    if labelled:
        return lot.between(max(1, most // 20), most)
    half = step // 2 if step % 2 == 0 else step
    return half * lot.between(1, most // half)


def _questions(lot: Lot, facts: Chart) -> list[Question]:
    table, subject = facts.table, facts.table.topic
    bars = len(subject.rows) * len(subject.columns)
    asked = [
        Question("title", (), "What is the title of the chart?", subject.title),
        Question("unit", (), "What does the chart count? Read it at the axis.", subject.unit),
        Question("lines", (), "How many lines are in the chart?", str(len(subject.rows)))
        if facts.kind == "lines"
        else Question("bars", (), "How many bars are in the chart?", str(bars)),
    ]
    if len(facts.series) > 1:
        for name, colour in zip(facts.series, facts.colours, strict=True):
            what = "line" if facts.kind == "lines" else "bars"
            text = f"Which colour {'is the line' if what == 'line' else 'are the bars'} of {name}?"
            asked.append(Question("colour", (name,), text, colour.capitalize()))
    for column in subject.columns:
        values = table.column(column)
        for row in subject.rows:
            asked.append(
                Question("cell", (row, column), subject.cell.format(row=row, column=column), table.shown(values[row]))
            )
        if len(subject.rows) > 1:
            asked += _ends(facts, column)
            asked += reckoned(table, column, lot.some(subject.rows, 2), f"for {column}")
    if facts.kind == "lines":
        for row in subject.rows:
            asked += _course(lot, facts, row)
    return asked


def _ends(facts: Chart, column: str) -> Iterator[Question]:
    """The row with the most, and that with the least, where there is one."""
    subject, values = facts.table.topic, facts.table.column(column)
    for form, words, value in (
        ("most", subject.top, max(values.values())),
        ("least", subject.bottom, min(values.values())),
    ):
        names = [name for name in subject.rows if values[name] == value]
        if len(names) == 1:
            yield Question(form, (column,), words.format(column=column), names[0])


def _course(lot: Lot, facts: Chart, row: str) -> Iterator[Question]:
    """Questions on how a line goes."""
    columns = facts.table.topic.columns
    values = [facts.table.at(row, column) for column in columns]
    for form, word, value in (("peak", "highest", max(values)), ("low", "lowest", min(values))):
        if values.count(value) == 1:
            text = f"Where is the number of {row} {word}?"
            yield Question(form, (row,), text, columns[values.index(value)])
    place = lot.between(0, len(columns) - 2)
    if values[place] != values[place + 1]:
        text = f"Did the number of {row} rise or fall from {columns[place]} to {columns[place + 1]}?"
        answer = "It rose" if values[place] < values[place + 1] else "It fell"
        also = ("rise", "rose") if values[place] < values[place + 1] else ("fall", "fell")
        yield Question("course", (row, columns[place], columns[place + 1]), text, answer, also=also)
