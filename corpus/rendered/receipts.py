"""Receipts of shops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corpus.rendered.lot import Lot
from corpus.rendered.paper import Paper, Question, Sheet
from corpus.rendered.people import Day, address, code, day, money, person, shop, telephone, town
from corpus.rendered.rows import Row, about_sheet, rows
from corpus.rendered.style import Style, style
from corpus.rendered.words import priced

SIGNS = ("", "$", "$")
TOTALS = ("TOTAL", "Total", "Total due", "AMOUNT DUE", "Grand total")
TAXES = (0, 5, 7, 8, 10, 19, 20)
THANKS = (
    "Thank you for your visit",
    "Thank you!",
    "Please come again",
    "Goods may be returned in 14 days",
    "Have a nice day",
)


@dataclass(frozen=True, slots=True)
class Item:
    """Goods on a receipt. `price`: of one, in hundredths."""

    name: str
    count: int
    price: int

    @property
    def sum(self) -> int:
        return self.count * self.price


@dataclass(frozen=True, slots=True)
class Receipt:
    """Content of a receipt. Amounts are in hundredths."""

    shop: str
    address: str
    town: str
    phone: str
    number: str
    day: Day
    time: str
    cashier: str
    items: tuple[Item, ...]
    tax_rate: int
    sign: str
    paid: int
    """Cash given; 0 if paid by card."""

    @property
    def subtotal(self) -> int:
        return sum(item.sum for item in self.items)

    @property
    def tax(self) -> int:
        """Tax comes on top; half a hundredth is rounded up."""
        return (self.subtotal * self.tax_rate + 50) // 100

    @property
    def total(self) -> int:
        return self.subtotal + self.tax

    @property
    def change(self) -> int:
        return self.paid - self.total

    def amount(self, cents: int) -> str:
        return money(cents, self.sign)


def make_receipts(split: str, count: int, seed: int) -> Iterator[Row]:
    """Receipts with questions on their total and other fields."""
    return rows("receipts", split, count, seed, lambda lot: about_sheet(lot, receipt(lot), "receipts"))


def receipt(lot: Lot) -> Sheet:
    """A receipt with its questions."""
    facts = _facts(lot)
    look = style(lot, 14, 17, only=("mono", "courier", "till", "sans", "roboto"))
    paper = _written(lot, facts, look)
    return Sheet("receipt", facts, paper, tuple(_questions(facts)), look.face)


def _facts(lot: Lot) -> Receipt:
    name, kind = shop(lot)
    items = []
    for thing, price in lot.some(priced(kind), lot.between(2, 7)):
        count = lot.between(2, 4) if lot.chance(30) else 1
        items.append(Item(thing, count, max(9, price * lot.between(70, 140) // 100)))
    unpaid = Receipt(
        shop=name,
        address=address(lot),
        town=town(lot),
        phone=telephone(lot),
        number=code(lot),
        day=day(lot, 2005, 2024),
        time=f"{lot.between(8, 19):02d}:{lot.between(0, 59):02d}",
        cashier=person(lot).split()[0],
        items=tuple(items),
        tax_rate=lot.one(TAXES),
        sign=lot.one(SIGNS),
        paid=0,
    )
    if lot.chance(40):
        return unpaid
    note = lot.one((500, 1000, 2000))
    paid = -(-unpaid.total // note) * note
    return Receipt(**{name: getattr(unpaid, name) for name in Receipt.__slots__ if name != "paid"}, paid=paid)


def _written(lot: Lot, facts: Receipt, look: Style) -> Paper:
    plain, heading = look.plain, look.large(1.3)
    widest = max(plain.length(f"{item.count} x {item.name} @ {facts.amount(item.price)}") for item in facts.items)
    width = max(widest + plain.length("  $000.00") + 40, heading.length(facts.shop) + 40, 250) + lot.between(0, 50)
    paper = look.paper(width, margin=lot.between(12, 18))
    right = width - paper.margin
    paper.line(facts.shop, heading, side="middle")
    paper.line(facts.address, look.small, side="middle")
    paper.line(facts.town, look.small, side="middle")
    if lot.chance(50):
        paper.line(f"Tel. {facts.phone}", look.small, side="middle")
    paper.rule(dashes=lot.chance(60))
    paper.cells([(paper.margin, str(facts.day), "left"), (right, facts.time, "right")], look.small)
    paper.line(f"Receipt {facts.number}", look.small)
    paper.line(f"Served by {facts.cashier}", look.small)
    paper.rule(dashes=lot.chance(60))
    for item in facts.items:
        name = f"{item.count} x {item.name} @ {facts.amount(item.price)}" if item.count > 1 else item.name
        paper.cells([(paper.margin, name, "left"), (right, facts.amount(item.sum), "right")], plain)
    paper.rule(dashes=lot.chance(60))

    def row(label: str, cents: int, writing: object = None) -> None:
        paper.cells([(paper.margin, label, "left"), (right, facts.amount(cents), "right")], writing or plain)  # type: ignore[arg-type]

    if facts.tax_rate:
        row("Subtotal", facts.subtotal)
        row(f"Tax {facts.tax_rate} %", facts.tax)
    row(lot.one(TOTALS), facts.total, look.large(1.15))
    if facts.paid:
        row("Cash", facts.paid)
        row("Change", facts.change)
    else:
        paper.line("Paid by card", plain)
    paper.skip(8)
    paper.line(lot.one(THANKS), look.small, side="middle")
    paper.cut()
    return paper


def _questions(facts: Receipt) -> list[Question]:
    amount = facts.amount
    asked = [
        Question("total", (), "What is the total on this receipt?", amount(facts.total)),
        Question("shop", (), "What is the name of the shop?", facts.shop),
        Question("day", (), "What is the date on the receipt?", str(facts.day)),
        Question("time", (), "At what time was the receipt printed?", facts.time),
        Question("number", (), "What is the number of this receipt?", facts.number),
        Question("cashier", (), "Who served the customer?", facts.cashier),
        Question("town", (), "In which town is the shop?", facts.town),
        Question("lines", (), "How many different items were bought?", str(len(facts.items))),
    ]
    if facts.tax_rate:
        asked.append(Question("tax", (), "How much tax was paid?", amount(facts.tax)))
        asked.append(Question("subtotal", (), "What is the subtotal before tax?", amount(facts.subtotal)))
    if facts.paid:
        asked.append(Question("paid", (), "How much cash was given?", amount(facts.paid)))
        steps = f"The cash is {amount(facts.paid)} and the total is {amount(facts.total)}. "
        steps += f"{amount(facts.paid)} - {amount(facts.total)} = {amount(facts.change)}."
        asked.append(Question("change", (), "How much change did the customer get back?", amount(facts.change), steps))
    else:
        asked.append(Question("method", (), "How was the receipt paid?", "By card", also=("card", "paid by card")))
    for item in facts.items:
        text = f'How much was charged for "{item.name}" in all?' if item.count > 1 else f'What did "{item.name}" cost?'
        asked.append(Question("price", (item.name,), text, amount(item.sum)))
        if item.count > 1:
            asked.append(Question("count", (item.name,), f'How many times was "{item.name}" bought?', str(item.count)))
            asked.append(
                Question("each", (item.name,), f'What is the price of a single "{item.name}"?', amount(item.price))
            )
    sums = sorted(item.sum for item in facts.items)
    dearest = max(facts.items, key=lambda item: item.sum)
    if sums[-1] > sums[-2]:
        asked.append(Question("dearest", (), "On which item was the most money spent?", dearest.name))
    first, last = facts.items[0], facts.items[-1]
    both = amount(first.sum + last.sum)
    steps = f"{first.name}: {amount(first.sum)}. {last.name}: {amount(last.sum)}. "
    steps += f"{amount(first.sum)} + {amount(last.sum)} = {both}."
    text = f'How much do "{first.name}" and "{last.name}" cost together?'
    asked.append(Question("together", (first.name, last.name), text, both, steps))
    return asked
