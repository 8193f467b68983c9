"""Sentences about whole scenes: captions as different people would write them."""

from __future__ import annotations

import random

from corpus.drawn.cast import Play, noun
from corpus.drawn.labels import a, be, listed, sentence, the
from corpus.drawn.layout import PLACES, Placed
from corpus.drawn.named_questions import BESIDE
from corpus.drawn.questions import RELATIONS, phrase
from corpus.drawn.wordings import NUMBERS


def captions(play: Play, rng: random.Random, count: int = 5) -> list[str]:
    """`count` different captions of a scene."""
    ways = (_list, _drawing_of, _places, _there_is, _beside, _counted)
    found: list[str] = []
    for turn in range(4 * count):
        said = sentence(ways[turn % len(ways)](play, rng))
        if said not in found:
            found.append(said)
    return rng.sample(found[: count + 1], count) if len(found) > count else _filled(found, count)


def _filled(found: list[str], count: int) -> list[str]:
    """As many as there should be: people say the same, too."""
    return [found[place % len(found)] for place in range(count)]


def told(thing: Placed, coloured: bool = True) -> str:
    """ "a red apple"."""
    return a(noun(thing.drawing), thing.colour if coloured else None)


def _shuffled(play: Play, rng: random.Random) -> list[Placed]:
    return rng.sample(play.things, len(play.things))


def _list(play: Play, rng: random.Random) -> str:
    return listed(told(thing) for thing in _shuffled(play, rng))


def _drawing_of(play: Play, rng: random.Random) -> str:
    return f"{rng.choice(OPENINGS)} {listed(told(thing, False) for thing in _shuffled(play, rng))}"


OPENINGS = ("a drawing of", "a picture with", "clip art of", "drawings of", "an image that shows")


def _places(play: Play, rng: random.Random) -> str:
    ordered = sorted(play.things, key=lambda thing: PLACES.index(thing.place))
    return listed(f"{told(thing)} {phrase(thing.place)}" for thing in ordered)


def _there_is(play: Play, rng: random.Random) -> str:
    one, *others = _shuffled(play, rng)
    name = noun(one.drawing)
    said = f"{phrase(one.place)} there {be(name)} {told(one)}"
    if not others:
        return said
    return f"{said}; {rng.choice(('the picture also shows', 'the rest of it is', 'one also sees'))} " + listed(
        told(thing) for thing in others
    )


def _beside(play: Play, rng: random.Random) -> str:
    """Sentence about the position of one thing relative to another, or that a thing is alone."""
    pairs = [
        (one, two, relation)
        for one in play.things
        for two in play.things
        for relation, measure in RELATIONS.items()
        if one is not two and measure(one, two) > 0
    ]
    if not pairs:
        ground = "white" if play.scene.background == (255, 255, 255) else "a light ground"
        return f"{_list(play, rng)} on {ground}"
    one, two, relation = rng.choice(pairs)
    said = f"{told(one)} {BESIDE[relation]} {told(two)}"
    rest = [thing for thing in play.things if thing not in (one, two)]
    return f"{said}, and {listed(told(thing) for thing in rest)}" if rest else said


def _counted(play: Play, rng: random.Random) -> str:
    number = len(play.things)
    if number == 1:
        return f"{the(noun(play.things[0].drawing))} {phrase(play.things[0].place)} of the picture"
    things = "drawings" if rng.random() < 0.5 else "things"
    return f"{NUMBERS[number]} {things}: {listed(told(thing) for thing in _shuffled(play, rng))}"
