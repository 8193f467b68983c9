"""Instructions about drawings: what is it, category, colour, count, place, and what differs between two pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lorgnette.data.builtin import named_questions
from lorgnette.data.builtin.cast import Cast, Play, cast, noun, origin
from lorgnette.data.builtin.differences import changed
from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.builtin.labels import labelled
from lorgnette.data.builtin.named_questions import Asked
from lorgnette.data.builtin.pictures import SIDE, cell, on_white
from lorgnette.data.builtin.sources import QuestionSource
from lorgnette.data.builtin.wordings import OF_FORMS, asked

Row = dict[str, Any]
MOST_TURNS = 4


def make_category(split: str, count: int, seed: int) -> Iterator[Row]:
    """What kind of thing a drawing shows, alone or among others."""
    return (_of_forms("category", split, seed, number) for number in range(count))


def make_colour(split: str, count: int, seed: int) -> Iterator[Row]:
    """The colour of a drawing, alone or among others."""
    return (_of_forms("colour", split, seed, number) for number in range(count))


def make_count(split: str, count: int, seed: int) -> Iterator[Row]:
    """How many drawings there are: of all, of a colour, of a thing."""
    for number in range(count):
        if number % 3 < 2:
            yield _of_forms("count", split, seed, number // 3 * 2 + number % 3, f"{number}")
        else:
            rng = _rng("count", split, seed, number)
            play, wanted, often = named_questions.crowd(cast(split, seed, "count"), rng, number // 3)
            first = named_questions.how_many(wanted, often)
            yield _row("count", rng, play, [first, *_some(rng, named_questions.counts(play), first)[:1]])


def make_place(split: str, count: int, seed: int) -> Iterator[Row]:
    """Where things are: in the picture, and left, right, above or below of others."""
    for number in range(count):
        if number % 2:
            yield _of_forms("position", split, seed, number // 2, f"{number}", "place")
        else:
            rng = _rng("place", split, seed, number)
            play, first = named_questions.placed(cast(split, seed, "place"), rng, number // 2)
            yield _row("place", rng, play, [first, *_some(rng, named_questions.places(play), first)])


def make_what(split: str, count: int, seed: int) -> Iterator[Row]:
    """What is drawn: of one drawing at its own shape, and of each thing of a scene."""
    deck, players = _deck(split, seed), cast(split, seed, "what")
    table = players.drawings
    for number in range(count):
        rng = _rng("what", split, seed, number)
        if number % 2:
            row = table[index := deck[number // 2 % len(deck)]]
            one = named_questions.what_is_it(noun(row), row.colour)
            text = asked(rng, one.wording, one.filled, one.answer, "what", 0.4)
            yield {"images": [cell(on_white(table, index))], "texts": [text], "origin": [row.id]}
        else:
            play = players.led(rng, number // 2, 2, 4)
            yield _row("what", rng, play, _turned(rng, _whats(players, rng, play)))


def make_difference(split: str, count: int, seed: int) -> Iterator[Row]:
    """Two pictures, of which the second is the first with one change, or none."""
    players = cast(split, seed, "difference")
    for number in range(count):
        rng = _rng("difference", split, seed, number)
        before, after, one = changed(players, rng, number)
        text = asked(rng, one.wording, one.filled, one.answer, "difference", 0)
        things = [thing.drawing for play in (before, after) for thing in play.things]
        yield {"images": [cell(before.draw()), cell(after.draw())], "texts": [text], "origin": origin(things)}


def _of_forms(kind: Any, split: str, seed: int, number: int, tag: str = "", source: str = "") -> Row:
    """Row `number` of the questions that have no names: the scene is made for the first, others follow."""
    rng = _rng(f"forms of {kind} {tag}", split, seed, number)
    made = _source(kind, split, seed, rng.randint(1, MOST_TURNS)).describe(number)
    texts = [
        asked(rng, OF_FORMS[turn["form"]], turn["filled"], turn["answer"], source or kind) for turn in made["turns"]
    ]
    picture = cell(made["scene"].draw(drawings(split)))
    return {"images": [picture], "texts": texts, "origin": list(dict.fromkeys(made["drawings"]))}


@lru_cache(maxsize=64)
def _source(kind: Any, split: str, seed: int, turns: int) -> QuestionSource:
    return QuestionSource(split, seed, turns=turns, kinds=(kind,), size=SIDE)


@lru_cache(maxsize=8)
def _deck(split: str, seed: int) -> tuple[int, ...]:
    """All labelled drawings of a split, those that may not stand in scenes too."""
    every = labelled(drawings(split))
    return tuple(random.Random(f"deck of what {seed} {split}").sample(every, len(every)))


def _whats(players: Cast, rng: random.Random, play: Play) -> list[Asked]:
    """All that can be asked about what is in a scene; as often for what is not there as for what is."""
    there = named_questions.is_there(rng.choice(play.nouns), True)
    absent = named_questions.is_there(players.absent(rng, play), False)
    return [*named_questions.whats(play), rng.choice((there, absent)), named_questions.everything(play)]


def _turned(rng: random.Random, options: list[Asked]) -> list[Asked]:
    """Up to `MOST_TURNS` of the options, in random order."""
    return rng.sample(options, min(rng.randint(1, MOST_TURNS), len(options)))


def _some(rng: random.Random, options: list[Asked], first: Asked) -> list[Asked]:
    """Up to three other questions, none with the words of another."""
    return _turned(rng, others)[:3] if (others := [one for one in options if one != first]) else []


def _row(task: str, rng: random.Random, play: Play, turns: list[Asked]) -> Row:
    texts = [asked(rng, one.wording, one.filled, one.answer, task) for one in turns]
    return {"images": [cell(play.draw())], "texts": texts, "origin": play.origin}


def _rng(task: str, split: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{task} {seed} {split} {number}")
