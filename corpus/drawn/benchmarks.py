"""Three benchmarks over drawings in the roles of VQAv2, OKVQA and COCO captions, in the public files' layouts.

Only facts of the scene, or of `facts.txt`, make the answers. Answers take turns, so that guessing pays little.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from corpus.cells import cell
from corpus.drawn import named_questions
from corpus.drawn.cast import Play, cast, noun
from corpus.drawn.compose import Composer, decks
from corpus.drawn.facts import Fact, known
from corpus.drawn.labels import labelled
from corpus.drawn.layout import single
from corpus.drawn.named_questions import Asked
from corpus.drawn.pictures import SIDE
from corpus.drawn.questions import FORMS
from corpus.drawn.telling import captions
from corpus.drawn.wordings import NUMBERS, OF_FORMS, Wording
from lorgnette.data.builtin.drawings import drawings

Row = dict[str, Any]
PEOPLE = 10
"""Answers to a question."""
TYPES = ("yes/no", "number", "other")
"""Types of questions of VQAv2, which take turns."""
COUNTED = ("count of all", "count of colour")
SEEN = ("colour of one", "category by place", "colour by place", "where", "category of one", "colour by category")
OTHER_WORDS = {
    "grey": "gray",
    "stationery": "office supplies",
    "plane": "airplane",
    "mobile phone": "cell phone",
    "television": "tv",
    "soccer ball": "football",
    "french fries": "fries",
    "hamburger": "burger",
    "ladybug": "ladybird",
    "popsicle": "ice lolly",
    "rubbish bin": "trash can",
    "wrench": "spanner",
}
"""Alternative words that some people would answer with."""
REFERENCES = 5
"""Captions of an image."""


def ten(answers: Sequence[str], rng: random.Random) -> list[str]:
    """Ten people's answers: the first one most often, and no right one of three less than three times."""
    ways = answers[:3]
    counts = {1: (10,), 2: (6, 4), 3: (4, 3, 3)}[len(ways)]
    given = [way for way, often in zip(ways, counts, strict=True) for _ in range(often)]
    return rng.sample(given, PEOPLE)


def make_scene_vqa(split: str, count: int, seed: int) -> Iterator[Row]:
    """The role of VQAv2: yes or no, numbers, and the rest."""
    for number in range(count):
        rng = random.Random(f"scene_vqa {seed} {split} {number}")
        turn, kind = divmod(number, len(TYPES))
        picture, origin, question, answer = _SCENE[TYPES[kind]](split, seed, turn, rng)
        answers = _ways(answer, TYPES[kind])
        yield _answers("scene_vqa", split, number, picture, origin) | {
            "question": question,
            "answers": ten(answers, rng),
            "question_type": TYPES[kind],
        }


def _ways(answer: str, kind: str) -> list[str]:
    if kind == "number":
        return [answer, NUMBERS[int(answer)]] if answer != "0" else [answer, "none"]
    return [answer, OTHER_WORDS[answer]] if answer in OTHER_WORDS else [answer]


def _yes_no(split: str, seed: int, turn: int, rng: random.Random) -> tuple[Any, list[str], str, str]:
    """Yes-or-no question about the presence of a thing or the relation of two; the answers alternate."""
    players, yes = cast(split, seed, "scene_vqa"), turn % 2 == 0
    while True:
        play = players.led(rng, turn // 2, 2, 4)
        related = [one for one in named_questions.places(play) if one.kind == "related"]
        options = {
            "there": [named_questions.is_there(name, True) for name in play.nouns]
            + [named_questions.is_there(players.absent(rng, play), False)],
            "related": related,
        }
        kind = ("there", "related")[turn // 2 % 2]
        fitting = [one for one in options[kind] if one.answer == ("yes" if yes else "no")]
        if fitting:
            return _asked(play, rng.choice(fitting), rng)


def _number(split: str, seed: int, turn: int, rng: random.Random) -> tuple[Any, list[str], str, str]:
    if turn % 3 == 2:
        play, name, often = named_questions.crowd(cast(split, seed, "scene_vqa"), rng, turn // 3)
        return _asked(play, named_questions.how_many(name, often), rng)
    return _of_form(COUNTED[turn % 3], split, seed, turn // 3, rng)


def _other(split: str, seed: int, turn: int, rng: random.Random) -> tuple[Any, list[str], str, str]:
    if turn % 2:
        play = cast(split, seed, "scene_vqa").led(rng, turn // 2, 2, 4)
        seen = [*named_questions.whats(play), *named_questions.colours(play)]
        kind = rng.choice(sorted({one.kind for one in seen}))
        return _asked(play, rng.choice([one for one in seen if one.kind == kind]), rng)
    return _of_form(SEEN[turn // 2 % len(SEEN)], split, seed, turn // 2 // len(SEEN), rng)


_SCENE = {"yes/no": _yes_no, "number": _number, "other": _other}


def _asked(play: Play, one: Asked, rng: random.Random) -> tuple[Any, list[str], str, str]:
    return cell(play.draw()), play.origin, _worded(one.wording, one.filled, rng), one.answer


def _of_form(form: str, split: str, seed: int, turn: int, rng: random.Random) -> tuple[Any, list[str], str, str]:
    """A question of `questions.FORMS`, with the scene composed for its answer."""
    made = Composer(decks(split, seed), SIDE).compose(FORMS[form], turn, rng)
    things = list(dict.fromkeys(thing.drawing.id for thing in made.scene.placed))
    return cell(made.scene.draw(drawings(split))), things, _worded(OF_FORMS[form], made.filled, rng), made.answer


def _worded(wording: Wording, filled: dict[str, str], rng: random.Random) -> str:
    """A question that is one: not "Count the drawings."."""
    question = rng.choice([one for one in wording.asked if one.endswith("?")]).format(**filled)
    return question[:1].upper() + question[1:]


def make_knowledge_vqa(split: str, count: int, seed: int) -> Iterator[Row]:
    """The role of OKVQA: a drawing, and a question that takes knowledge of what it shows."""
    table, pool = drawings(split), _known(split, seed)
    for number in range(count):
        rng = random.Random(f"knowledge_vqa {seed} {split} {number}")
        index, fact = pool[number % len(pool)]
        picture = cell(single(rng, table, index, SIDE).draw(table))
        yield _answers("knowledge_vqa", split, number, picture, [table[index].id]) | {
            "question": fact.question,
            "answers": ten(fact.answers, rng),
            "question_type": fact.kind,
        }


@lru_cache(maxsize=8)
def _known(split: str, seed: int) -> tuple[tuple[int, Fact], ...]:
    """Everything that can be asked, in an order in which properties, and the answers of each, take turns."""
    table = drawings(split)
    rng = random.Random(f"knowledge {seed} {split}")
    every = labelled(table)
    waiting: dict[str, dict[str, list[tuple[int, Fact]]]] = {}
    for index in rng.sample(every, len(every)):
        for fact in known(noun(table[index])):
            waiting.setdefault(fact.kind, {}).setdefault(fact.answer, []).append((index, fact))
    for answers in waiting.values():
        for asked in answers.values():
            rng.shuffle(asked)  # else one drawing leads in all of its properties
    found = []
    while waiting:
        for name in rng.sample(sorted(waiting), len(waiting)):
            answers = waiting[name]
            answer = next(iter(answers))
            found.append(answers[answer].pop())
            left = answers.pop(answer)
            if left:
                answers[answer] = left  # at the end: the next answer takes its turn
            if not answers:
                del waiting[name]
    return tuple(found)


def make_scene_captions(split: str, count: int, seed: int) -> Iterator[Row]:
    """The role of COCO captions: scenes of one to four things, each with several references."""
    for number in range(count):
        rng = random.Random(f"scene_captions {seed} {split} {number}")
        play = cast(split, seed, "scene_captions").led(rng, number, 1, 4)
        yield {
            "image_id": _id("scene_captions", split, number),
            "image": cell(play.draw()),
            "captions": captions(play, rng, REFERENCES),
            "origin": play.origin,
        }


def _answers(benchmark: str, split: str, number: int, picture: Any, origin: list[str]) -> Row:
    """Columns common to all rows with short answers."""
    return {
        "question_id": number,
        "image_id": _id(benchmark, split, number),
        "image": picture,
        "origin": origin,
    }


def _id(benchmark: str, split: str, number: int) -> str:
    return f"{benchmark}/{split}/{number}"
