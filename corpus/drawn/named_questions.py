"""Questions about a scene of named things, with the answers that follow from its boxes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import permutations

from corpus.drawn.cast import Cast, Play, noun
from corpus.drawn.labels import CHROMATIC, a, be, countable, definite, listed, plural, the
from corpus.drawn.layout import GRIDS_FOR, PLACES
from corpus.drawn.questions import RELATIONS, phrase
from corpus.drawn.wordings import NUMBERS, Wording


@dataclass(frozen=True)
class Asked:
    """A question, with the short answer."""

    kind: str
    wording: Wording
    answer: str
    filled: dict[str, str] = field(default_factory=dict)


WHAT = Wording(
    (
        "What is this?",
        "What do you see?",
        "What is drawn here?",
        "Name the thing in this picture.",
        "What does it show?",
    ),
    ("This is {it}.", "The drawing shows {it}.", "I see {it}.", "It is {it}."),
)
WHAT_MANY = Wording(WHAT.asked, ("These are {it}.", "The drawing shows {it}.", "I see {it}."))
WHAT_AT = Wording(
    ("What is {place}?", "What do you see {place}?", "Name the thing {place}.", "Which thing is {place}?"),
    ("{Place} there {is} {it}.", "The picture shows {it} {place}.", "I see {it} {place}."),
)
WHAT_BESIDE = Wording(
    ("What is {relation} {other}?", "Name the thing {relation} {other}.", "Which thing do you see {relation} {other}?"),
    ("There {is} {it} {relation} {other}.", "{Relation} {other} I see {it}."),
)
IS_THERE = Wording(
    ("{Is} there {it} in the picture?", "Do you see {it}?", "Does the picture show {it}?", "Can you find {it} here?"),
    ("{Yes}, {seen}.",),
)
EVERYTHING = Wording(
    ("Name everything in the picture.", "What can be seen in the picture?", "List the things in this picture."),
    ("The picture shows {all}.", "I see {all}.", "There is {all}."),
)
WHERE = Wording(
    ("Where {is} {the}?", "Where do you see {the}?", "In which part of the picture {is} {the}?"),
    ("{The} {is} {at}.", "You find {the} {at}."),
)
HOW_MANY = Wording(
    ("How many {things} are there?", "How many {things} do you see?", "Count the {things}.", "Number of {things}?"),
    ("{There} {number} {counted}.", "I count {number} {counted}.", "The picture shows {number} {counted}."),
)
SIDE = Wording(
    ("{Is} {the} {one} or {two} {other}?", "How {is} {the} placed: {one} {other}, or {two} {them}?"),
    ("{The} {is} {relation} {other}.",),
)
RELATED = Wording(
    ("{Is} {the} {relation} {other}?", "Would you say that {the} {is} {relation} {other}?"),
    ("{Yes}, {the} {is} {not}{relation} {other}.",),
)
COLOUR = Wording(
    ("What colour {is} {the}?", "Which colour {is} {the}?", "Tell me the colour of {the}."),
    ("{The} {is} {answer}.",),
)
BESIDE = {"above": "above", "below": "below", "left of": "to the left of", "right of": "to the right of"}
"""Phrases for the relations of `RELATIONS`."""


def what_is_it(name: str, colour: str | None) -> Asked:
    """Question about the only drawing of a picture: its name."""
    wording = WHAT_MANY if be(name) == "are" else WHAT
    return Asked("what", wording, name, {"it": a(name, colour)})


def whats(play: Play) -> list[Asked]:
    """Questions for the thing at each place, and for the thing beside each other one where only one is."""
    found = []
    for thing, name in zip(play.things, play.nouns, strict=True):
        place = phrase(thing.place)
        filled = {"place": place, "Place": place.capitalize(), "it": a(name, thing.colour), "is": be(name)}
        found.append(Asked("what at", WHAT_AT, name, filled))
    for other in play.things:
        for relation, measure in RELATIONS.items():
            there = [thing for thing in play.things if thing is not other and measure(thing, other) > 0]
            if len(there) == 1:
                name, said = noun(there[0].drawing), BESIDE[relation]
                filled = {"relation": said, "Relation": said.capitalize(), "it": a(name, there[0].colour)}
                filled |= {"is": be(name), "other": the(noun(other.drawing))}
                found.append(Asked("what beside", WHAT_BESIDE, name, filled))
    return found


def is_there(name: str, there: bool) -> Asked:
    """Yes-or-no question about the presence of a thing."""
    said = f"there {be(name)} {a(name)}" if there else f"I see no {name}"
    return Asked("is there", IS_THERE, "yes" if there else "no", {**_it(name), "it": a(name), "seen": said})


def everything(play: Play) -> Asked:
    """All things, from the top left to the bottom right."""
    ordered = sorted(play.things, key=lambda thing: PLACES.index(thing.place))
    full = listed(a(noun(thing.drawing), thing.colour) for thing in ordered)
    return Asked("everything", EVERYTHING, listed(noun(thing.drawing) for thing in ordered), {"all": full})


def how_many(name: str, often: int) -> Asked:
    """Question for the number of a thing."""
    many = plural(name)
    filled = {"things": many, "counted": name if often == 1 else many, "number": NUMBERS[often]}
    return Asked("how many", HOW_MANY, str(often), filled)


def counts(play: Play) -> list[Asked]:
    """Questions for the number of each countable thing."""
    return [how_many(name, often) for name, often in Counter(play.nouns).items() if countable(name)]


def crowd(players: Cast, rng: random.Random, number: int) -> tuple[Play, str, int]:
    """A scene with nought to four of a thing, and the thing. Numbers and things take turns."""
    often, turn = number % 5, number // 5
    names = players.several
    name = names[(turn * 5 + often * 7 + rng.randrange(len(names))) % len(names)]
    deck = players.by_noun[name]
    there = [rng.choice(deck) for _ in range(often)]
    rest = players.others(rng, rng.randint(1 if often else 2, 6 - max(often, 2)), [deck[0]])
    indices = [*there, *rest]
    return players.play(rng, rng.sample(indices, len(indices))), name, often


def where(name: str, place: str) -> Asked:
    """In which part of the picture a thing is."""
    return Asked("where", WHERE, place, {**_it(name), "at": phrase(place)})


def placed(players: Cast, rng: random.Random, number: int) -> tuple[Play, Asked]:
    """A scene made for a question about a place. Questions and answers take turns."""
    turn, kind = divmod(number, 3)
    first = players.lead(number)
    indices = [first, *players.others(rng, rng.randint(1, 3), [first])]
    if kind == 0:
        place = PLACES[turn % len(PLACES)]
        grid = rng.choice([grid for grid in GRIDS_FOR[len(indices)] if place in grid.places])
        cell = grid.places.index(place)
        rest = [other for other in range(grid.columns * grid.rows) if other != cell]
        play = players.arranged(rng, indices, grid, [cell, *rng.sample(rest, len(indices) - 1)])
        return play, where(play.nouns[0], place)
    relation = tuple(RELATIONS)[turn % 4]
    yes = turn // 4 % 2 == 0
    while True:
        play = players.play(rng, indices, rng.choice(GRIDS_FOR[len(indices)]))
        sense = RELATIONS[relation](*play.things[:2])
        if kind == 1 and sense > 0:
            return play, _beside(play, 0, 1, relation)
        if kind == 2 and (sense > 0) == yes and sense:
            return play, _related(play, 0, 1, relation)


def places(play: Play) -> list[Asked]:
    """Questions for the place of each thing, and for the relation of each pair."""
    found = [where(name, thing.place) for thing, name in zip(play.things, play.nouns, strict=True)]
    for one, two in permutations(range(len(play.things)), 2):
        for relation, measure in RELATIONS.items():
            if sense := measure(play.things[one], play.things[two]):
                found.append(_related(play, one, two, relation))
                if sense > 0:
                    found.append(_beside(play, one, two, relation))
    return found


def _beside(play: Play, one: int, two: int, relation: str) -> Asked:
    """Left or right of, above or below another thing."""
    pair = ("to the left of", "to the right of") if " of" in relation else ("above", "below")
    filled = {**_it(play.nouns[one]), "one": pair[0], "two": pair[1], "other": the(play.nouns[two])}
    filled |= {"relation": BESIDE[relation], "them": "them" if be(play.nouns[two]) == "are" else "it"}
    return Asked("side", SIDE, BESIDE[relation].removesuffix(" of"), filled)


def _related(play: Play, one: int, two: int, relation: str) -> Asked:
    """Yes-or-no question about a relation of two things; not asked where neither it nor its opposite holds."""
    filled = {**_it(play.nouns[one]), "relation": BESIDE[relation], "other": the(play.nouns[two])}
    holds = RELATIONS[relation](play.things[one], play.things[two]) > 0
    return Asked("related", RELATED, "yes" if holds else "no", filled)


def colours(play: Play) -> list[Asked]:
    """The colour of each thing that has a clear one; flags and cards are not asked about."""
    return [
        Asked("colour", COLOUR, str(thing.colour), _it(name))
        for thing, name in zip(play.things, play.nouns, strict=True)
        if thing.colour in CHROMATIC and not definite(name)
    ]


def _it(name: str) -> dict[str, str]:
    return {"the": the(name), "The": _capital(the(name)), "is": be(name), "Is": be(name).capitalize()}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
