"""Pictures of things with words on them: signs in the street, on walls and shops, and goods."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpus.rendered import sign_goods, sign_places, sign_walls
from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question, Sheet
from corpus.rendered.rows import Row, about_sheet, rows

KINDS: tuple[Callable[[Lot], Sheet], ...] = (
    sign_places.shop_front,
    sign_places.road,
    sign_places.van,
    sign_places.departures,
    sign_walls.notice,
    sign_walls.street_name,
    sign_walls.hours,
    sign_walls.poster,
    sign_walls.door,
    sign_goods.jar,
    sign_goods.book,
    sign_goods.prices,
    sign_goods.shirt,
)
"""Each draws one kind of thing and asks what is written on it."""
SAYS = ("What does it say here?", "Which words can you read in the picture?", "Read what is written here.")


def make_signs(split: str, count: int, seed: int) -> Iterator[Row]:
    """Signs and goods with questions on what they say."""
    return rows("signs", split, count, seed, lambda lot: about_sheet(lot, sign(lot), "signs"))


def sign(lot: Lot) -> Sheet:
    """Something with words on it, with its questions: what it says in all is one of them."""
    sheet = lot.one(KINDS)(lot)
    says = Question("says", (), lot.one(SAYS), " ".join(sheet.text.split("\n")))
    return Sheet(sheet.layout, sheet.facts, sheet.paper, (*sheet.questions, says))
