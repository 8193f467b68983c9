"""Tables, and what can be looked up and reckoned in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.rows import Row, about_sheet, rows
from corpus.rendered.style import Style, style
from corpus.rendered.table_topics import Topic, topic
from corpus.rendered.texts import BUSINESS, paragraph

LOOKS = ("grid", "rules", "bands", "bare")
BAND = 225
"""Grey behind every second row of a banded table."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of numbers, in hundredths."""

    topic: Topic
    cells: tuple[tuple[int, ...], ...]
    total: bool
    """The last row that is shown is the sum of the others."""

    def at(self, row: str, column: str) -> int:
        return self.cells[self.topic.rows.index(row)][self.topic.columns.index(column)]

    def column(self, column: str) -> dict[str, int]:
        return {row: self.at(row, column) for row in self.topic.rows}

    def shown(self, hundredths: int) -> str:
        """A number as the table writes it: amounts of money with two decimals, others with as many as they need."""
        whole, rest = divmod(hundredths, 100)
        if self.topic.money:
            return f"{whole}.{rest:02d}"
        return f"{whole}.{rest:02d}".rstrip("0").rstrip(".")

    def lines(self) -> list[tuple[str, ...]]:
        """Rows of the table as text, the heading first."""
        subject = self.topic
        lines: list[tuple[str, ...]] = [(subject.corner, *subject.columns)]
        for name, row in zip(subject.rows, self.cells, strict=True):
            lines.append((name, *map(self.shown, row)))
        if self.total:
            lines.append(("Total", *(self.shown(sum(column)) for column in zip(*self.cells, strict=True))))
        return lines


def make_tables(split: str, count: int, seed: int) -> Iterator[Row]:
    """Tables with questions: look-up, comparison, sums of cells, doubled or 10 % more."""
    return rows("tables", split, count, seed, lambda lot: about_sheet(lot, table(lot), "tables", 5, steps=80))


def table(lot: Lot, *, prose: bool = False) -> Sheet:
    """A table with its questions. prose: between paragraphs, as in a report."""
    subject = topic(lot)
    facts = Table(subject, tuple(_row(lot, subject) for _ in subject.rows), total=subject.adds_up and lot.chance(30))
    look = style(lot, 14, 18)
    paper = _written(lot, facts, look, prose)
    return Sheet("table", facts, paper, tuple(_questions(lot, facts)), look.face)


def _row(lot: Lot, subject: Topic) -> tuple[int, ...]:
    """Numbers of a row; prices grow from one size to the next."""
    if subject.money:
        return tuple(sorted(10 * value for value in lot.some(range(subject.least, subject.most), len(subject.columns))))
    return tuple(100 * lot.between(subject.least, subject.most) for _ in subject.columns)


def _written(lot: Lot, facts: Table, look: Style, prose: bool) -> Paper:
    lines = facts.lines()
    gap = lot.between(18, 34)
    widths = [max(look.bold.length(line[place]) for line in lines) + gap for place in range(len(lines[0]))]
    margin = lot.between(22, 36)
    inner = max(sum(widths), 420 if prose else 240)
    paper = look.paper(inner + 2 * margin, margin=margin)
    paper.paragraph(facts.topic.title, look.large(1.2))
    paper.skip(8)
    if prose:
        paper.paragraph(paragraph(lot, BUSINESS, 2), look.plain)
        paper.skip(10)
    _grid(lot, paper, lines, widths, look)
    paper.skip(10)
    if facts.topic.note:
        paper.paragraph(facts.topic.note, look.small)
    if prose:
        paper.paragraph(paragraph(lot, BUSINESS, 2), look.plain)
    paper.cut()
    return paper


def _grid(lot: Lot, paper: Paper, lines: list[tuple[str, ...]], widths: list[int], look: Style) -> None:
    kind = lot.one([kind for kind in LOOKS if not (look.sharp and kind == "bands")])
    height = look.size + lot.between(10, 18)
    left, top = paper.margin, paper.y
    right = left + sum(widths)
    ends = [left + sum(widths[: place + 1]) for place in range(len(widths))]
    for number, line in enumerate(lines):
        y = top + number * height
        heavy = number == 0 or line[0] == "Total"
        if kind == "bands" and number % 2:
            paper.pen.rectangle((left, y, right, y + height - 1), fill=BAND)
        writing = look.bold if heavy else look.plain
        base = y + (height + round(look.size * 0.72)) // 2
        paper.put(left + 6, base, line[0], writing)
        for end, text in zip(ends[1:], line[1:], strict=True):
            paper.put(end - 6, base, text, writing, side="right")
        paper.note(" ".join(line))
        if kind == "grid" or (kind == "rules" and number in (0, 1, len(lines) - (line[0] == "Total"))):
            paper.pen.line((left, y, right, y), fill=paper.ink)
    bottom = top + len(lines) * height
    if kind in ("grid", "rules"):
        paper.pen.line((left, bottom, right, bottom), fill=paper.ink)
    if kind == "grid":
        for x in (left, *ends):
            paper.pen.line((x, top, x, bottom), fill=paper.ink)
    paper.y = bottom


def _questions(lot: Lot, facts: Table) -> list[Question]:
    subject = facts.topic
    asked = [
        Question("title", (), "What is the title of the table?", subject.title),
        Question("rows", (), f"How many {subject.many} does the table list?", str(len(subject.rows))),
    ]
    for column in subject.columns:
        values = facts.column(column)
        low, *_, high = sorted(values.values())
        for form, words, value in (("most", subject.top, high), ("least", subject.bottom, low)):
            names = [name for name in subject.rows if values[name] == value]
            if len(names) == 1:
                asked.append(Question(form, (column,), words.format(column=column), names[0]))
        limit = lot.between(low // 100, high // 100)
        over = sum(value > limit * 100 for value in values.values())
        text = f"How many {subject.many} have a number above {limit} in the column {column}?"
        asked.append(Question("above", (column, str(limit)), text, str(over)))
        for row in subject.rows:
            text = subject.cell.format(row=row, column=column)
            asked.append(Question("cell", (row, column), text, facts.shown(values[row])))
        asked += reckoned(facts, column, lot.some(subject.rows, 2), f"in the column {column}")
    asked.append(_summed(facts, lot.one(subject.rows)))
    return asked


def reckoned(facts: Table, column: str, names: list[str], where: str) -> Iterator[Question]:
    """Questions on two cells of a column, with the steps written out. where: how the question says which column."""
    one, other = names
    first, second = facts.at(one, column), facts.at(other, column)
    shown, both, about = facts.shown, first + second, (one, other, column)
    read = f"{one} {where}: {shown(first)}. {other}: {shown(second)}."
    added = f"{read} {shown(first)} + {shown(second)} = {shown(both)}."
    sum_of = f"the numbers of {one} and {other} {where}"
    yield Question("sum", about, f"What is the sum of {sum_of}?", shown(both), added)
    steps = f"{added} {shown(both)} x 2 = {shown(2 * both)}."
    yield Question("double", about, f"Add {sum_of}. What is the double of the sum?", shown(2 * both), steps)
    tenth, more = shown(both // 10), shown(both + both // 10)
    steps = f"{added} 10 % of {shown(both)} is {tenth}. {shown(both)} + {tenth} = {more}."
    yield Question("tenth more", about, f"Add {sum_of}. What is 10 % more than the sum?", more, steps)
    if first != second:
        more, less = (one, other) if first > second else (other, one)
        apart = shown(abs(first - second))
        steps = f"{read} {shown(max(first, second))} - {shown(min(first, second))} = {apart}."
        text = f"By how much is the number of {more} {where} higher than that of {less}?"
        yield Question("difference", (more, less, column), text, apart, steps)
        text = f"Is the number of {one} {where} higher than that of {other}?"
        yield Question("higher", about, text, "Yes" if first > second else "No")


def _summed(facts: Table, row: str) -> Question:
    values = facts.cells[facts.topic.rows.index(row)]
    total = facts.shown(sum(values))
    steps = f"{row}: {', '.join(map(facts.shown, values))}. {' + '.join(map(facts.shown, values))} = {total}."
    return Question("row", (row,), f"What do the numbers in the row {row} add up to?", total, steps)
