"""Topics of tables: titles by split, names of rows and columns, and question templates for a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corpus.rendered.lot import Lot
from corpus.rendered.people import company, person, shop, surname, town
from corpus.rendered.words import MONTHS, WEEKDAYS, priced

MUSEUMS = ("Art", "Bell", "Bread", "Clock", "Coin", "Doll", "Glass", "Map", "Puppet", "Railway", "Ship", "Stamp")
CLUBS = ("Choir", "Chess Club", "Rowing Club", "Book Club", "Garden Club", "Ski Club", "Drama Group", "Brass Band")
TEAMS = ("Badgers", "Bears", "Cranes", "Eagles", "Falcons", "Foxes", "Hawks", "Lynxes", "Otters", "Owls", "Wolves")
CROPS = (
    "Apples",
    "Barley",
    "Beans",
    "Cabbage",
    "Carrots",
    "Hay",
    "Maize",
    "Oats",
    "Onions",
    "Pears",
    "Potatoes",
    "Wheat",
)
SIZES = ("Small", "Medium", "Large", "Extra large")
PARTS_OF_A_HOUSE = ("Attic", "Cellar", "Garage", "Hall", "Kitchen", "Laundry", "Library", "Workshop")


@dataclass(frozen=True, slots=True)
class Topic:
    """Topic of a table or chart. Templates have the placeholders {row} and {column}."""

    title: str
    corner: str
    """The heading of the names of rows."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cell: str
    """Question template for one number."""
    top: str
    """Question template for the row with the highest number of a column."""
    bottom: str
    unit: str
    """Unit of the numbers."""
    many: str
    """Noun for the rows, in the plural."""
    least: int
    most: int
    money: bool = False
    """Numbers are amounts; `least` and `most` are tenths then."""
    adds_up: bool = True
    """The sum of a column means something."""
    note: str = ""


def _years(lot: Lot, count: int) -> tuple[str, ...]:
    first = lot.between(1990, 2024 - count)
    return tuple(str(first + place) for place in range(count))


def _run(lot: Lot, names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names that follow one another."""
    first = lot.between(0, len(names) - count)
    return tuple(names[first : first + count])


def _sales(lot: Lot, rows: int, columns: int) -> Topic:
    name, kind = shop(lot)
    return Topic(
        title=f"Sales of {name}",
        corner="Article",
        rows=tuple(lot.some([thing for thing, _ in priced(kind)], rows)),
        columns=_run(lot, WEEKDAYS, columns),
        cell='How many pieces of the article "{row}" were sold on {column}?',
        top="Which article was sold most often on {column}?",
        bottom="Which article was sold least often on {column}?",
        unit="Pieces sold",
        many="articles",
        least=2,
        most=99,
    )


def _museums(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Visitors of the museums of {town(lot)}",
        corner="Museum",
        rows=tuple(f"{kind} Museum" for kind in lot.some(MUSEUMS, rows)),
        columns=_years(lot, columns),
        cell="How many people visited the {row} in {column}?",
        top="Which museum had the most visitors in {column}?",
        bottom="Which museum had the fewest visitors in {column}?",
        unit="Visitors",
        many="museums",
        least=40,
        most=980,
    )


def _rain(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Rain around {town(lot)} in millimetres",
        corner="Town",
        rows=tuple(lot.apart([lambda: town(lot)] * rows)),
        columns=_run(lot, MONTHS, columns),
        cell="How many millimetres of rain fell in {row} in {column}?",
        top="In which town did the most rain fall in {column}?",
        bottom="In which town did the least rain fall in {column}?",
        unit="Millimetres of rain",
        many="towns",
        least=5,
        most=140,
        adds_up=False,
    )


def _letters(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Letters answered at {company(lot)}",
        corner="Name",
        rows=tuple(lot.apart([lambda: person(lot)] * rows)),
        columns=_run(lot, WEEKDAYS[:5], min(columns, 4)),
        cell="How many letters did {row} answer on {column}?",
        top="Who answered the most letters on {column}?",
        bottom="Who answered the fewest letters on {column}?",
        unit="Letters",
        many="people",
        least=3,
        most=60,
    )


def _clubs(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Members of the clubs of {town(lot)}",
        corner="Club",
        rows=tuple(lot.some(CLUBS, min(rows, 7))),
        columns=_years(lot, columns),
        cell="How many members did the {row} have in {column}?",
        top="Which club had the most members in {column}?",
        bottom="Which club had the fewest members in {column}?",
        unit="Members",
        many="clubs",
        least=8,
        most=120,
    )


def _prices(lot: Lot, rows: int, columns: int) -> Topic:
    name, kind = shop(lot)
    return Topic(
        title=f"Prices at {name}",
        corner="Article",
        rows=tuple(lot.some([thing for thing, _ in priced(kind)], rows)),
        columns=SIZES[: min(columns, 4)],
        cell='What is the price of the article "{row}" in the column {column}?',
        top="Which article is the dearest in the column {column}?",
        bottom="Which article is the cheapest in the column {column}?",
        unit="Dollars",
        many="articles",
        least=5,
        most=260,
        money=True,
        adds_up=False,
        note="All prices are in dollars.",
    )


def _league(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Points in the {town(lot)} league",
        corner="Team",
        rows=tuple(lot.some(TEAMS, rows)),
        columns=tuple(f"Round {number}" for number in range(1, columns + 1)),
        cell="How many points did the {row} have in {column}?",
        top="Which team had the most points in {column}?",
        bottom="Which team had the fewest points in {column}?",
        unit="Points",
        many="teams",
        least=0,
        most=48,
        adds_up=False,
    )


def _harvest(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Harvest of the {surname(lot)} farm in tonnes",
        corner="Crop",
        rows=tuple(lot.some(CROPS, rows)),
        columns=_years(lot, columns),
        cell="How many tonnes of {row} were harvested in {column}?",
        top="Which crop had the largest harvest in {column}?",
        bottom="Which crop had the smallest harvest in {column}?",
        unit="Tonnes",
        many="crops",
        least=2,
        most=90,
    )


def _power(lot: Lot, rows: int, columns: int) -> Topic:
    return Topic(
        title=f"Electricity used at {lot.between(2, 60)} {town(lot)} Square in kilowatt-hours",
        corner="Room",
        rows=tuple(lot.some(PARTS_OF_A_HOUSE, min(rows, 7))),
        columns=_run(lot, MONTHS, columns),
        cell="How many kilowatt-hours were used for the {row} in {column}?",
        top="For which room was the most electricity used in {column}?",
        bottom="For which room was the least electricity used in {column}?",
        unit="Kilowatt-hours",
        many="rooms",
        least=4,
        most=150,
    )


Maker = Callable[[Lot, int, int], Topic]

TOPICS: tuple[Maker, ...] = (
    _sales,
    _museums,
    _rain,
    _letters,
    _clubs,
    _prices,
    _league,
    _harvest,
    _power,
)


IN_TIME = tuple(make for make in TOPICS if make is not _prices)
"""Topics whose columns follow one another in time."""

Range = tuple[int, int]


def topic(lot: Lot, rows: Range = (3, 8), columns: Range = (2, 5), among: Sequence[Maker] = TOPICS) -> Topic:
    """A topic of so many rows and columns, both ends included; some topics have fewer."""
    return lot.one(among)(lot, lot.between(*rows), lot.between(*columns))
