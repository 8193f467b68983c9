"""Drawing of charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corpus.rendered.fonts import Print
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Ink, Paper, Side
from corpus.rendered.words import COLOURS

if TYPE_CHECKING:
    from corpus.rendered.charts import Chart

WHITE, GREY = (255, 255, 255), (205, 205, 205)
GROUNDS = (WHITE, WHITE, WHITE, (250, 246, 236), (240, 244, 250))
FACES = ("sans", "roboto", "slab", "times", "serif")


@dataclass(frozen=True, slots=True)
class Plot:
    """Scale of a chart: the inner rectangle, in pixels, and the number at its far end."""

    paper: Paper
    writing: Print
    box: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    top: int

    def up(self, value: int) -> int:
        """Vertical coordinate of a number, where numbers grow upwards."""
        _, top, _, bottom = self.box
        return bottom - value * (bottom - top) // self.top

    def across(self, value: int) -> int:
        """Horizontal coordinate of a number, where numbers grow to the right."""
        left, _, right, _ = self.box
        return left + value * (right - left) // self.top

    def number(self, value: int, x: int, y: int, side: Side = "middle") -> None:
        """Write a number; y is the middle of its height."""
        self.paper.put(x, y + round(self.writing.size * 0.36), str(value), self.writing, side=side)


def drawn(lot: Lot, facts: Chart) -> Paper:
    """The chart with its title, its axes and, if it has more than one colour, its legend."""
    face, size = lot.one(FACES), lot.between(13, 16)
    plain, heading = Print(face, size), Print(face, round(size * 1.2), bold=True)
    names = facts.table.topic.columns if facts.kind == "lines" else facts.table.topic.rows
    widest = max(plain.length(name) for name in names)
    if facts.kind == "sideways":
        width = widest + lot.between(320, 420)
    else:
        width = 90 + max(300, len(names) * (widest + 16)) + lot.between(0, 60)
    legend = max(plain.length(name) for name in facts.series) + 80
    paper = Paper(max(width, legend), margin=lot.between(14, 22), ground=lot.one(GROUNDS))
    paper.paragraph(facts.table.topic.title, heading)
    if len(facts.series) == 1:
        if facts.kind != "lines" or facts.series[0] not in facts.table.topic.title:
            paper.line(facts.series[0], plain)
    else:
        _legend(paper, facts, plain)
    paper.skip(4)
    paper.line(facts.table.topic.unit, Print(face, size - 1))
    paper.skip(round(size * 0.8))
    if facts.kind == "sideways":
        _sideways(lot, paper, facts, plain)
    else:
        _upright(lot, paper, facts, plain)
    paper.cut()
    return paper


def _legend(paper: Paper, facts: Chart, writing: Print) -> None:
    paper.skip(4)
    x, height = paper.margin, round(writing.size * 1.5)
    said = []
    for name, colour in zip(facts.series, facts.colours, strict=True):
        length = writing.length(name) + writing.size + 26
        if x > paper.margin and x + length > paper.width - paper.margin:
            x, paper.y = paper.margin, paper.y + height
        base = paper.y + writing.size
        paper.pen.rectangle((x, base - writing.size + 3, x + writing.size - 3, base), fill=COLOURS[colour])
        paper.put(x + writing.size + 3, base, name, writing)
        said.append(name)
        x += length
    paper.y += height
    paper.note(" ".join(said))


def _upright(lot: Lot, paper: Paper, facts: Chart, writing: Print) -> None:
    """Bars that stand up, or lines."""
    left = paper.margin + writing.length(str(facts.top)) + 8
    top, right = paper.y, paper.width - paper.margin
    plot = Plot(paper, writing, (left, top, right, top + lot.between(190, 280)), facts.top)
    _, _, _, bottom = plot.box
    for value in range(0, facts.top + 1, facts.step):
        y = plot.up(value)
        paper.pen.line((left, y, right, y), fill=GREY)
        plot.number(value, left - 6, y, "right")
    paper.pen.line((left, top, left, bottom), fill=paper.ink)
    paper.pen.line((left, bottom, right, bottom), fill=paper.ink)
    names = facts.table.topic.columns if facts.kind == "lines" else facts.table.topic.rows
    slot = (right - left) / len(names)
    middles = [round(left + slot * (place + 0.5)) for place in range(len(names))]
    if facts.kind == "lines":
        for row, colour in zip(facts.table.cells, facts.colours, strict=True):
            _line(plot, facts, middles, row, COLOURS[colour])
    else:
        for middle, row in zip(middles, facts.table.cells, strict=True):
            _bars(plot, facts, middle, round(slot * 0.7), row)
    for middle, name in zip(middles, names, strict=True):
        paper.put(middle, bottom + round(writing.size * 1.25), name, writing, side="middle")
    paper.note(" ".join(names))
    paper.y = bottom + round(writing.size * 1.7)


def _line(plot: Plot, facts: Chart, middles: Sequence[int], row: Sequence[int], ink: Ink) -> None:
    points = [(x, plot.up(value // 100)) for x, value in zip(middles, row, strict=True)]
    plot.paper.pen.line(points, fill=ink, width=3)
    for (x, y), value in zip(points, row, strict=True):
        plot.paper.pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ink)
        if facts.labelled:
            plot.number(value // 100, x, y - plot.writing.size)


def _bars(plot: Plot, facts: Chart, middle: int, width: int, row: Sequence[int]) -> None:
    """The bars of one place, side by side."""
    each = width // len(row)
    bottom = plot.box[3]
    for place, (value, colour) in enumerate(zip(row, facts.colours, strict=True)):
        left = middle - width // 2 + place * each
        y = plot.up(value // 100)
        plot.paper.pen.rectangle((left, y, left + each - 2, bottom - 1), fill=COLOURS[colour])
        if facts.labelled:
            plot.number(value // 100, left + each // 2 - 1, y - round(plot.writing.size * 0.6))


def _sideways(lot: Lot, paper: Paper, facts: Chart, writing: Print) -> None:
    """Bars that lie, from the top down."""
    names = facts.table.topic.rows
    each = lot.between(15, 20)
    slot = each * len(facts.series) + lot.between(10, 16)
    left = paper.margin + max(map(writing.length, names)) + 10
    right = paper.width - paper.margin - writing.length(str(facts.top))
    top = paper.y
    plot = Plot(paper, writing, (left, top, right, top + slot * len(names)), facts.top)
    bottom = plot.box[3]
    for value in range(0, facts.top + 1, facts.step):
        x = plot.across(value)
        paper.pen.line((x, top, x, bottom), fill=GREY)
        plot.number(value, x, bottom + writing.size)
    for number, (name, row) in enumerate(zip(names, facts.table.cells, strict=True)):
        start = top + number * slot + (slot - each * len(row)) // 2
        paper.put(left - 8, start + each * len(row) // 2 + writing.size // 3, name, writing, side="right")
        paper.note(name)
        for place, (value, colour) in enumerate(zip(row, facts.colours, strict=True)):
            y, end = start + place * each, plot.across(value // 100)
            paper.pen.rectangle((left + 1, y, end, y + each - 2), fill=COLOURS[colour])
            if facts.labelled:
                plot.number(value // 100, end + 5, y + each // 2 - 1, "left")
    paper.pen.line((left, top, left, bottom), fill=paper.ink)
    paper.pen.line((left, bottom, right, bottom), fill=paper.ink)
    paper.y = bottom + round(writing.size * 1.7)
