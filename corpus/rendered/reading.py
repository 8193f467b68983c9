"""Short invented texts, with questions that only the text answers."""

from __future__ import annotations

from collections.abc import Callable

from corpus.rendered.lot import Lot
from corpus.rendered.paper import Question
from corpus.rendered.people import company, money, person, shop, telephone, town
from corpus.rendered.rows import Said, choose, said
from corpus.rendered.words import JOBS, LANGUAGES, THINGS, WEEKDAYS

Passage = tuple[str, list[Question]]


def passage(lot: Lot) -> list[Said]:
    """A text in the first turn, and one to three questions on it."""
    text, questions = lot.one(PASSAGES)(lot)
    asked = [said(lot, question) for question in choose(lot, questions, lot.between(1, 3))]
    first, *rest = asked
    return [(f"{text}\n\n{first[0]}", first[1]), *rest]


def _somebody(lot: Lot) -> Passage:
    name, job = person(lot), lot.one(JOBS)
    born, since = lot.between(1950, 1990), lot.between(10, 30)
    home, before, firm, language = town(lot), town(lot), company(lot), lot.one(LANGUAGES)
    text = f"{name} was born in {before} in {born} and has lived in {home} since {born + since}. "
    text += f"By trade {name} is {_a(job)} and works for {firm}. On weekends {name} teaches {language}."
    steps = f"{name} was born in {born} and moved in {born + since}. {born + since} - {born} = {since}."
    return text, [
        Question("born in", (), f"Where was {name} born?", f"In {before}"),
        Question("born", (), f"In which year was {name} born?", str(born)),
        Question("lives", (), f"Where does {name} live?", f"In {home}"),
        Question("job", (), f"What is the job of {name}?", job.capitalize()),
        Question("firm", (), f"For whom does {name} work?", firm),
        Question("language", (), f"What does {name} teach?", language),
        Question("age", (), f"How many years after being born did {name} come to {home}?", str(since), steps),
    ]


def _stock(lot: Lot) -> Passage:
    name, _ = shop(lot)
    one, two = lot.some(THINGS, 2)
    first, second, sold = lot.between(30, 90), lot.between(30, 90), lot.between(5, 29)
    day = lot.one(WEEKDAYS)
    text = (
        f"On {day} morning {name} had {first} {one} and {second} {two}. By the evening it had sold {sold} of the {one} "
    )
    text += f"and none of the {two}."
    left = first - sold
    return text, [
        Question("left", (), f"How many {one} were left in the evening?", str(left), f"{first} - {sold} = {left}."),
        Question("kept", (), f"How many {two} were left in the evening?", str(second)),
        Question(
            "all",
            (),
            f"How many {one} and {two} were there in the morning?",
            str(first + second),
            f"{first} + {second} = {first + second}.",
        ),
        Question("day", (), "On which day was this?", day),
        Question("shop", (), "What is the name of the shop?", name),
    ]


def _message(lot: Lot) -> Passage:
    sender, to = lot.apart([lambda: person(lot)] * 2)
    day, hour = lot.one(WEEKDAYS), lot.between(7, 18)
    place, phone, things = town(lot), telephone(lot), lot.one(THINGS)
    text = f"Dear {to}, please bring the {things} to the station of {place} on {day} at {hour}:30. "
    text += f"If you are late, call {phone}. Yours, {sender}"
    return text, [
        Question("sender", (), "Who wrote this message?", sender),
        Question("to", (), "To whom is the message written?", to),
        Question("things", (), "What is to be brought?", f"The {things}"),
        Question("place", (), "Where is it to be brought?", f"To the station of {place}"),
        Question("when", (), "When is it to be brought?", f"On {day} at {hour}:30"),
        Question("phone", (), "Which number is to be called in case of delay?", phone),
    ]


def _journey(lot: Lot) -> Passage:
    name = person(lot)
    stops = lot.apart([lambda: town(lot)] * 3)
    first, second, fare = lot.between(12, 95), lot.between(12, 95), 50 * lot.between(6, 60)
    text = f"{name} takes the bus from {stops[0]} to {stops[1]}, which is {first} kilometres, "
    text += f"and goes on by train to {stops[2]}, which is another {second} kilometres. "
    text += f"The ticket for all of it costs ${money(fare)}."
    both = f"{first} + {second} = {first + second}."
    return text, [
        Question("start", (), f"Where does {name} start?", f"In {stops[0]}"),
        Question("end", (), f"Where does the journey of {name} end?", f"In {stops[2]}"),
        Question("change", (), f"Where does {name} change from the bus to the train?", f"In {stops[1]}"),
        Question("far", (), "How many kilometres is the whole journey?", str(first + second), both),
        Question("fare", (), "What does the ticket cost?", f"${money(fare)}"),
        Question(
            "twice",
            (),
            "What do two such tickets cost?",
            f"${money(2 * fare)}",
            f"2 x ${money(fare)} = ${money(2 * fare)}.",
        ),
    ]


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeio' else 'a'} {word}"


PASSAGES: tuple[Callable[[Lot], Passage], ...] = (_somebody, _stock, _message, _journey)
"""Each makes one kind of text."""
