"""Invented people, places, shops, days and amounts. None is meant to be anybody's."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.rendered.lot import Lot
from corpus.rendered.words import (
    COMPANY_ENDS,
    FIRST_NAMES,
    MONTHS,
    SHOP_KINDS,
    STREET_ENDS,
    SURNAME_ENDS,
    SURNAME_STARTS,
    TOWN_ENDS,
    TOWN_STARTS,
)


def surname(lot: Lot) -> str:
    """One of about 7,000, each of one split."""
    return lot.draw(lambda: _joined(lot.one(SURNAME_STARTS), lot.one(SURNAME_ENDS)))


def person(lot: Lot) -> str:
    return f"{lot.one(FIRST_NAMES)} {surname(lot)}"


def town(lot: Lot) -> str:
    """One of about 4,000, each of one split."""
    return lot.draw(lambda: _joined(lot.one(TOWN_STARTS), lot.one(TOWN_ENDS)))


def street(lot: Lot) -> str:
    return lot.draw(lambda: f"{_joined(lot.one(TOWN_STARTS), lot.one(TOWN_ENDS))} {lot.one(STREET_ENDS)}")


def address(lot: Lot) -> str:
    """House number and street."""
    return f"{lot.between(1, 240)} {street(lot)}"


def company(lot: Lot) -> str:
    """A firm, which bears a surname or the name of a place."""
    name = surname(lot) if lot.chance(60) else town(lot)
    return f"{name} {lot.one(COMPANY_ENDS)}"


def shop(lot: Lot) -> tuple[str, str]:
    """A shop's name, and the kind of goods it sells."""
    kind = lot.one(sorted(SHOP_KINDS))
    if lot.chance(50):
        owner = surname(lot)
        name = f"{owner}'s {kind}" if lot.chance(50) else f"{owner} {kind}"
    else:
        name = f"{town(lot)} {kind}"
    return name, SHOP_KINDS[kind]


def _joined(start: str, end: str) -> str:
    """Two parts of a name as one, without a letter three times or a part twice."""
    if start.lower() == end:
        end = "ton"
    while start[-1] == end[0] and end[0] == end[1:2]:
        end = end[1:]
    return start + end


@dataclass(frozen=True, slots=True)
class Day:
    """A date. `style` is how it is written."""

    year: int
    month: int
    day: int
    style: int

    def __str__(self) -> str:
        name = MONTHS[self.month - 1]
        return (
            f"{self.day} {name} {self.year}",
            f"{name} {self.day}, {self.year}",
            f"{self.year}-{self.month:02d}-{self.day:02d}",
            f"{self.day:02d}.{self.month:02d}.{self.year}",
            f"{self.day} {name[:3]} {self.year}",
        )[self.style]

    @property
    def iso(self) -> str:
        return f"{self.year}-{self.month:02d}-{self.day:02d}"


def day(lot: Lot, first: int = 1985, last: int = 2024) -> Day:
    """A day between two years, both included."""
    return Day(lot.between(first, last), lot.between(1, 12), lot.between(1, 28), lot.between(0, 4))


def telephone(lot: Lot) -> str:
    """A number of the range that is kept free for fiction."""
    return f"555-01{lot.between(0, 99):02d}"


def email(lot: Lot, name: str) -> str:
    first, last = name.lower().split()[:2]
    return f"{lot.one((first, first[0]))}.{last}@{lot.one(('mail', 'post', 'letters'))}.example"


def code(lot: Lot, letters: str = "ABCDEFGHJKLMNPRSTUVWXY") -> str:
    """A reference number such as KD-48213."""
    return lot.draw(lambda: f"{lot.one(letters)}{lot.one(letters)}-{lot.between(10000, 99999)}")


def money(cents: int, sign: str = "") -> str:
    """An amount with two decimals; `sign` stands before it."""
    minus, cents = ("-" if cents < 0 else ""), abs(cents)
    return f"{minus}{sign}{cents // 100}.{cents % 100:02d}"
