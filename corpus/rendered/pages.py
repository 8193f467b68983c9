"""Pages with their full text: letters, books, handwriting, receipts, forms, tables and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered.forms import form
from corpus.rendered.letters import letter, note, story
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Sheet
from corpus.rendered.receipts import receipt
from corpus.rendered.rows import Row, picture, rows
from corpus.rendered.tables import table

LAYOUTS: tuple[Callable[[Lot], Sheet], ...] = (
    letter,
    letter,
    form,
    form,
    receipt,
    table,
    lambda lot: table(lot, prose=True),
    lambda lot: story(lot, by_hand=False),
    lambda lot: story(lot, by_hand=True),
    note,
)
"""One is chosen for each page."""


def make_pages(split: str, count: int, seed: int) -> Iterator[Row]:
    """Pages of documents and the text on them, in reading order."""
    for index, row in enumerate(rows("pages", split, count, seed, _page)):
        yield {**row, "name": f"{split}-{index:06d}-{row['name']}"}


def _page(lot: Lot) -> Row:
    sheet = lot.one(LAYOUTS)(lot)
    return {"image": picture(lot, sheet.paper), "text": sheet.text, "name": sheet.layout, "page": 1}
