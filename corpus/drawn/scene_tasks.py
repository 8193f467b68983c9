"""Tasks about drawings: what is it, category, colour, count, place, and questions by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import PIL.Image

from corpus.drawn import named_questions
from corpus.drawn.cast import Cast, Play, cast, noun, origin
from corpus.drawn.labels import labelled
from corpus.drawn.layout import Placed, Scene
from corpus.drawn.named_questions import Asked
from corpus.drawn.question_source import QuestionSource
from corpus.drawn.wordings import OF_FORMS
from lorgnette.data.builtin.drawings import Drawings, drawings

MOST_TURNS = 4


@dataclass(frozen=True)
class Drawn:
    """A scene, and what is asked about it: row `number` of a task before it is worded."""

    scene: Scene
    table: Drawings
    asked: list[Asked]
    rng: random.Random
    """To word the questions with: in the state that the row was left in."""
    brief: float = 0.5
    """Share of answers that are a single word."""

    @property
    def picture(self) -> PIL.Image.Image:
        return self.scene.draw(self.table)

    @property
    def origin(self) -> list[str]:
        return origin(thing.drawing for thing in self.scene.placed)


def _category(split: str, seed: int, number: int, size: int) -> Drawn:
    return _of_forms("category", split, seed, number, size)


def _colour(split: str, seed: int, number: int, size: int) -> Drawn:
    return _of_forms("colour", split, seed, number, size)


def _count(split: str, seed: int, number: int, size: int) -> Drawn:
    if number % 3 < 2:
        return _of_forms("count", split, seed, number // 3 * 2 + number % 3, size, f"{number}")
    rng = _rng("count", split, seed, number)
    play, wanted, often = named_questions.crowd(cast(split, seed, "count", size), rng, number // 3)
    first = named_questions.how_many(wanted, often)
    return _of_play(rng, play, [first, *_some(rng, named_questions.counts(play), first)[:1]])


def _place(split: str, seed: int, number: int, size: int) -> Drawn:
    if number % 2:
        return _of_forms("position", split, seed, number // 2, size, f"{number}")
    rng = _rng("place", split, seed, number)
    play, first = named_questions.placed(cast(split, seed, "place", size), rng, number // 2)
    return _of_play(rng, play, [first, *_some(rng, named_questions.places(play), first)])


def _what(split: str, seed: int, number: int, size: int) -> Drawn:
    players, rng = cast(split, seed, "what", size), _rng("what", split, seed, number)
    if number % 2:
        deck = _deck(split, seed)
        row = players.drawings[index := deck[number // 2 % len(deck)]]
        one = named_questions.what_is_it(noun(row), row.colour)
        alone = Placed(index, (0, 0, row.width, row.height), "middle", row)
        return Drawn(Scene(row.width, row.height, (255, 255, 255), (alone,)), players.drawings, [one], rng, 0.4)
    play = players.led(rng, number // 2, 2, 4)
    return _of_play(rng, play, _turned(rng, _whats(players, rng, play)))


def _named(split: str, seed: int, number: int, size: int) -> Drawn:
    """Up to six questions about a scene of named things, though not how many: one of each. Most are answered by yes
    or no; both are as frequent, and what was asked before tells nothing about them."""
    players, rng = cast(split, seed, "named", size), _rng("named", split, seed, number)
    play = players.led(rng, number, 2, 4)
    there = [named_questions.is_there(name, True) for name in play.nouns]
    missing = dict.fromkeys(players.absent(rng, play) for _ in range(4))
    absent = [named_questions.is_there(name, False) for name in missing]
    places = named_questions.places(play)
    yes, no = ([one for one in places if one.kind == "related" and one.answer == answer] for answer in ("yes", "no"))
    turns = [*_two(rng, there, absent), *_two(rng, yes, no)]
    rest = (named_questions.colours(play), named_questions.whats(play))
    for options in (*rest, [one for one in places if one.kind != "related"]):
        turns += [rng.choice(options)] if options else []
    return _of_play(rng, play, rng.sample(turns, len(turns))[:6])


def _two(rng: random.Random, yes: list[Asked], no: list[Asked]) -> list[Asked]:
    """Two different questions, each answered by yes as often as by no, whatever the other is answered by."""
    often = rng.choice((0, 1, 1, 2))
    return [*rng.sample(yes, min(often, len(yes))), *rng.sample(no, min(2 - often, len(no)))]


TASKS: dict[str, Callable[[str, int, int, int], Drawn]] = {
    "what": _what,
    "category": _category,
    "colour": _colour,
    "count": _count,
    "place": _place,
    "named": _named,
}
"""Makers of row `number` of (split, seed), with scenes of `size` pixels. Rows depend on nothing else."""


def _of_forms(kind: Any, split: str, seed: int, number: int, size: int, tag: str = "") -> Drawn:
    """Row `number` of the questions that have no names: the scene is made for the first, others follow."""
    rng = _rng(f"forms of {kind} {tag}", split, seed, number)
    made = _source(kind, split, seed, rng.randint(1, MOST_TURNS), size).describe(number)
    turns = [Asked(turn["form"], OF_FORMS[turn["form"]], turn["answer"], turn["filled"]) for turn in made["turns"]]
    return Drawn(made["scene"], drawings(split), turns, rng)


@lru_cache(maxsize=64)
def _source(kind: Any, split: str, seed: int, turns: int, size: int) -> QuestionSource:
    return QuestionSource(split, seed, turns=turns, kinds=(kind,), size=size)


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


def _of_play(rng: random.Random, play: Play, turns: list[Asked]) -> Drawn:
    return Drawn(play.scene, play.drawings, turns, rng)


def _rng(task: str, split: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{task} {seed} {split} {number}")
