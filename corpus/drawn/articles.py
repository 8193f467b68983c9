"""Illustrated articles: two to eight drawings, and text that speaks of those before it, by their order and content.

Five kinds take turns. In all of them the words that matter can only be known from the right picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from corpus.cells import cell
from corpus.drawn.cast import RARE, Cast, cast, family, noun, origin
from corpus.drawn.facts import known
from corpus.drawn.labels import CHROMATIC, a, be, definite, listed, sentence, the
from corpus.drawn.pictures import on_white
from corpus.drawn.wordings import NUMBERS, thing
from lorgnette.data.builtin.drawings import Drawing

Row = dict[str, Any]
FEWEST, MOST = 2, 8
"""Drawings of an article."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Told:
    """An article: drawings, by their index, and texts in reading order."""

    parts: tuple[int | str, ...]

    def row(self, players: Cast) -> Row:
        """As OBELICS has it: lists of equal length, one of the two at each place."""
        table = players.drawings
        pictures = [cell(on_white(table, part)) if isinstance(part, int) else None for part in self.parts]
        texts = [part if isinstance(part, str) else None for part in self.parts]
        shown = [table[part] for part in self.parts if isinstance(part, int)]
        return {"images": pictures, "texts": texts, "origin": origin(shown)}


def make_articles(split: str, count: int, seed: int) -> Iterator[Row]:
    """Article after article; kinds, and the drawings that come first, take turns."""
    players = cast(split, seed, "articles")
    for number in range(count):
        rng = random.Random(f"articles {seed} {split} {number}")
        yield Told(tuple(_KINDS[number % len(_KINDS)](players, rng, number))).row(players)


def _collection(players: Cast, rng: random.Random, turn: int) -> list[int | str]:
    """A walk through things of one category, or of any: each described, and compared with one before it."""
    table = players.drawings
    indices = _chosen(players, rng, turn, rng.randint(3, MOST), alike=turn // len(_KINDS) % 2 == 0)
    rows = [table[index] for index in indices]
    shared = _shared([row.category for row in rows])
    title = f"{NUMBERS[len(rows)]} drawings" + (f" of one kind: {shared}" if shared else "")
    parts: list[int | str] = [title.capitalize()]
    for place, row in enumerate(rows):
        said = [rng.choice(_INTRODUCED[min(place, 1)]).format(it=_it(row), ordinal=ORDINALS[place])]
        said += _facts(rng, row, 1)
        if place:
            said.append(_compared(rng, rows[:place], row))
        parts += [indices[place], " ".join(map(sentence, said))]
    return [*parts, sentence(_ending(rng, rows))]


_INTRODUCED = (
    ("The {ordinal} drawing shows {it}", "We begin with {it}", "Above you see {it}", "First of all, {it}"),
    ("The {ordinal} drawing shows {it}", "Next comes {it}", "Here we have {it}", "Then you see {it}", "Now for {it}"),
)


def _compared(rng: random.Random, before: Sequence[Drawing], row: Drawing) -> str:
    """Comparison of the newest drawing with an earlier one: same or different kind or colour."""
    place = rng.randrange(len(before))
    other = before[place]
    back = len(before) - place
    which = (
        f"the {ORDINALS[place]} drawing"
        if rng.random() < 0.5
        else ("the drawing just before" if back == 1 else f"the drawing {NUMBERS[back]} places before")
    )
    name = noun(other)
    ways = [f"{which} was {a(name, other.colour)}", f"do not take it for {the(name)} of {which}"]
    if row.category and row.category == other.category:
        ways += [f"like {the(name)} of {which}, it is {thing(row.category)}"] * 2
    elif row.category and other.category:
        ways.append(f"{which} showed {thing(other.category)}; this one shows {thing(row.category)}")
    if _has_colour(row) and _has_colour(other):
        same = row.colour == other.colour
        ways.append(
            f"it is as {row.colour} as {the(name)} of {which}"
            if same
            else f"it is {row.colour}, and {the(name)} of {which} was {other.colour}"
        )
    return rng.choice(ways)


def _ending(rng: random.Random, rows: Sequence[Drawing]) -> str:
    names = [noun(row) for row in rows]
    one = rng.randrange(len(rows))
    return rng.choice(
        (
            f"in short, we have seen {listed(a(name) for name in names)}",
            f"of these {NUMBERS[len(rows)]} drawings the first showed {a(names[0])} and the last {a(names[-1])}",
            f"if you liked {the(names[one])} best, look at the {ORDINALS[one]} drawing again",
            f"read backwards, the drawings show {listed(a(name) for name in reversed(names))}",
        )
    )


def _odd_one_out(players: Cast, rng: random.Random, turn: int) -> list[int | str]:
    """Pictures with letters, of which one is of another category: the solution names each."""
    table = players.drawings
    alike = _chosen(players, rng, turn, rng.randint(2, 5), alike=True)
    category = table[alike[0]].category
    taken = {family(table[index]) for index in alike}
    others = [
        index
        for index in players.leads
        if table[index].category not in (None, category, "icon", "shape") and family(table[index]) not in taken
    ]
    odd = rng.choice(others)
    indices = rng.sample([*alike, odd], len(alike) + 1)
    parts: list[int | str] = [rng.choice(("Which is the odd one out?", "One of these does not belong to the others."))]
    for place, index in enumerate(indices):
        parts += [index, f"Picture {LETTERS[place]}."]
    place = indices.index(odd)
    rest = [f"{a(noun(table[index]))} ({LETTERS[at]})" for at, index in enumerate(indices) if index != odd]
    said = f"Solution: picture {LETTERS[place]}. It shows {a(noun(table[odd]))}, which {be(noun(table[odd]))} "
    said += f"{thing(str(table[odd].category))}. The others are {listed(rest)}"
    if category and category not in ("icon", "shape"):
        said += f", all of one kind: {category}"
    parts[-1] = f"{parts[-1]}\n\n{said}."
    return parts


def _figures(players: Cast, rng: random.Random, turn: int) -> list[int | str]:
    """Numbered figures, and a text that speaks of them in another order."""
    table = players.drawings
    indices = _chosen(players, rng, turn, rng.randint(FEWEST, 6), alike=False)
    parts: list[int | str] = []
    for place, index in enumerate(indices):
        parts += [index, f"Figure {place + 1}"]
    said = []
    for place in rng.sample(range(len(indices)), len(indices)):
        row = table[indices[place]]
        said.append(rng.choice(_OF_FIGURES).format(it=_it(row), number=place + 1, is_=be(noun(row))))
        said += _facts(rng, row, 1)
    one, two = rng.sample(range(len(indices)), 2)
    first, second = noun(table[indices[min(one, two)]]), noun(table[indices[max(one, two)]])
    said.append(f"{the(first)} {be(first)} shown before {the(second)}")
    parts[-1] = f"{parts[-1]}\n\n{' '.join(map(sentence, said))}"
    return parts


_OF_FIGURES = ("figure {number} shows {it}", "in figure {number} we see {it}", "{it} {is_} shown in figure {number}")


def _week(players: Cast, rng: random.Random, turn: int) -> list[int | str]:
    """Somebody finds something day after day, and tells of it afterwards."""
    table = players.drawings
    indices = _chosen(players, rng, turn, rng.randint(3, 7), alike=False)
    who, pronoun = rng.choice(PEOPLE)
    verb, past = rng.choice((("drew", "drawn"), ("copied", "copied"), ("painted", "painted")))
    parts: list[int | str] = []
    for place, index in enumerate(indices):
        row = table[index]
        start = f"On {DAYS[place]} {who if place == 0 else pronoun} {verb} this:"
        parts += [start, index, sentence(rng.choice(("It was {it}", "{it}", "This time {it}")).format(it=_it(row)))]
        if place and rng.random() < 0.6:
            before = table[indices[place - 1]]
            parts[-1] = f"{parts[-1]} {sentence(f'the day before it had been {a(noun(before))}')}"
    one = rng.randrange(len(indices))
    names = [noun(table[index]) for index in indices]
    last = f"On {DAYS[one]}, then, {who} had {past} {a(names[one])}, and at the end of these {NUMBERS[len(names)]} days"
    parts[-1] = f"{parts[-1]}\n\n{last} there were {listed(a(name) for name in names)}."
    return _joined(parts)


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PEOPLE = (("Anna", "she"), ("Boris", "he"), ("Carla", "she"), ("David", "he"), ("Elif", "she"), ("Femi", "he"))


def _riddles(players: Cast, rng: random.Random, turn: int) -> list[int | str]:
    """A fact about each thing before it is named, and questions about all of them at the end."""
    table = players.drawings
    knowing = [index for index in players.leads if known(noun(table[index]))]
    first = knowing[turn // len(_KINDS) % len(knowing)]
    indices, families = [first], {family(table[first])}
    for index in rng.sample(knowing, len(knowing)):
        if len(indices) < 2 + turn // len(_KINDS) % 4 and family(table[index]) not in families:
            indices.append(index)
            families.add(family(table[index]))
    parts: list[int | str] = [rng.choice(("What do you know of these?", "Things worth knowing", "A short lesson"))]
    for place, index in enumerate(indices):
        row = table[index]
        said = [f"number {place + 1} shows {_it(row)}", *_facts(rng, row, 2)]
        parts += [index, " ".join(map(sentence, said))]
    asked = rng.sample(range(len(indices)), min(3, len(indices)))
    for place in asked:
        fact = rng.choice(known(noun(table[indices[place]])))
        parts.append(f"Number {place + 1}: {fact.question} {sentence(fact.answer)}")
    return _joined(parts)


_KINDS: tuple[Callable[[Cast, random.Random, int], list[int | str]], ...] = (
    _collection,
    _odd_one_out,
    _figures,
    _week,
    _riddles,
)


def _chosen(players: Cast, rng: random.Random, turn: int, count: int, alike: bool) -> list[int]:
    """The drawing whose turn it is, and others of other families: of the same category where that is wanted.

    Flags and cards are alike where the first is one, and then of different nouns.
    """
    table = players.drawings
    first = players.lead(turn)
    row = table[first]
    if not alike:
        indices = [first, *players.others(rng, count - 1, [first])]
        return rng.sample(indices, count)
    rare = family(row) in RARE
    indices, said = [first], {noun(row) if rare else family(row)}
    deck = players.by_family[family(row)] if rare else players.leads
    for index in rng.sample(deck, len(deck)):
        key = noun(table[index]) if rare else family(table[index])
        if len(indices) < count and table[index].category == row.category and key not in said:
            indices.append(index)
            said.add(key)
    if len(indices) < FEWEST:
        indices += players.others(rng, FEWEST - len(indices), indices)
    return rng.sample(indices, len(indices))


def _it(row: Drawing) -> str:
    return a(noun(row), row.colour)


def _facts(rng: random.Random, row: Drawing, most: int) -> list[str]:
    facts = known(noun(row))
    return [fact.statement for fact in rng.sample(facts, min(most, len(facts)))]


def _has_colour(row: Drawing) -> bool:
    return row.colour in CHROMATIC and not definite(noun(row))


def _shared(categories: Sequence[str | None]) -> str | None:
    """The category of all, if they have one that is worth a word."""
    (one, *others) = dict.fromkeys(categories)
    return one if not others and one not in (None, "icon", "shape") else None


def _joined(parts: list[int | str]) -> list[int | str]:
    """Neighbouring texts as paragraphs of one."""
    found: list[int | str] = []
    for part in parts:
        if found and isinstance(part, str) and isinstance(before := found[-1], str):
            found[-1] = f"{before}\n\n{part}"
        else:
            found.append(part)
    return found
