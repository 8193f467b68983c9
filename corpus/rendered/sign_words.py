"""Signs and goods in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from corpus.rendered.sign_places import WAYS
from corpus.rendered.texts import listed

PATTERNS = {
    "shop front": "This is the front of a shop. The sign over its window says {shop}, and the one at the door "
    "says {state}. The number of the house is {house}.",
    "van": "This is a van of {company}. It shows the telephone number {phone} and the registration number {plate}.",
    "notice": 'This is a sign in the street. It says "{notice}".',
    "street name": "This is a street sign. It says {street}, with the house numbers {numbers}.",
    "poster": "This is a poster for an event: {event}. It takes place at this address: {place}. "
    "The date is {day}, the time {time}. The entry: {price}.",
    "door": "This is a plate beside a door. It says {name}, {job}, Room {room}.",
    "jar": "This is a jar of {what} by {maker}. It holds {weight}, and it is best before {until}.",
    "book cover": 'This is a book with the title "{title}" by {author}. It was published by {house}.',
    "shirt": "This is a shirt with the name {player} and the number {number}.",
}
"""Layout -> sentences with places for the facts."""


def described(layout: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about a sign."""
    if layout in PATTERNS:
        yield PATTERNS[layout].format(**facts)
    else:
        yield from OTHERS[layout](facts)


def _road(facts: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    yield f"This is a road sign with {len(facts)} towns."
    for name, (way, length) in facts.items():
        yield f"It is {length} km to {name}; the arrow says {WAYS[way].lower()}."


def _departures(facts: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield f"This is the board of a station with {len(facts)} trains."
    for name, (time, track) in facts.items():
        yield f"The train to {name} leaves at {time} from platform {track}."


def _hours(facts: Mapping[str, str]) -> Iterator[str]:
    days = {day: time for day, time in facts.items() if day != "shop"}
    yield f"This sign shows the opening hours of {facts['shop']}."
    for day, time in days.items():
        yield (
            f"On {day} it is closed."
            if time == "closed"
            else f"On {day} it is open from {time.replace(' - ', ' to ')}."
        )


def _prices(facts: Mapping[str, str]) -> Iterator[str]:
    goods = [f"{name} for {price}" for name, price in facts.items() if name != "owner"]
    yield f"This is a board with prices. It says that {facts['owner']}'s stall sells {listed(goods)}."


OTHERS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "road sign": _road,
    "departures": _departures,
    "hours": _hours,
    "prices": _prices,
}
"""Layout -> what tells it, where sentences depend on how many facts there are."""
