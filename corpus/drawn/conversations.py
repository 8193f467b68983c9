"""Conversations of several turns about one to three images: later questions go back to earlier images and answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from corpus.cells import cell
from corpus.drawn import named_questions
from corpus.drawn.articles import ORDINALS
from corpus.drawn.cast import Cast, cast, noun, origin
from corpus.drawn.facts import known
from corpus.drawn.labels import CHROMATIC, a, be, definite, listed, sentence, the
from corpus.drawn.pictures import on_white
from corpus.drawn.questions import phrase
from corpus.drawn.wordings import asked, thing
from lorgnette.data.builtin.drawings import Drawing

Row = dict[str, Any]


@dataclass
class Talk:
    """A conversation while it is written."""

    rng: random.Random
    images: list[dict[str, Any]] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def say(self, question: str, answer: str, images: int = 0) -> None:
        """A turn of each. images: how many of them stand before the question."""
        shown = [{"type": "image", "text": None}] * images
        self._add("user", [*shown, {"type": "text", "text": question[:1].upper() + question[1:]}])
        self._add("assistant", [{"type": "text", "text": sentence(answer)}])

    def _add(self, role: str, content: list[dict[str, Any]]) -> None:
        self.messages.append({"role": role, "content": content})

    def row(self) -> Row:
        return {"images": self.images, "messages": self.messages, "origin": origin(self.drawings)}


def make_conversations(split: str, count: int, seed: int) -> Iterator[Row]:
    """Conversation after conversation; kinds, and the drawings that come first, take turns."""
    players = cast(split, seed, "conversations")
    for number in range(count):
        talk = Talk(random.Random(f"conversations {seed} {split} {number}"))
        _KINDS[number % len(_KINDS)](players, talk, number)
        yield talk.row()


def _about_one(players: Cast, talk: Talk, number: int) -> None:
    """One drawing: what it is, and what follows from that."""
    (row,) = _show(players, talk, [players.lead(number)])
    _ask_what(talk, row, 1)
    options = [*_colour(talk, row), *_category(talk, row), *_facts(talk, row), _is_it(players, talk, row)]
    for question, answer in talk.rng.sample(options, min(len(options), talk.rng.randint(2, 4))):
        talk.say(question, answer)


def _one_after_another(players: Cast, talk: Talk, number: int) -> None:
    """Two or three drawings, each shown when the last one has been talked about; then all of them."""
    rng = talk.rng
    first = players.lead(number)
    rows = _show(players, talk, [first, *players.others(rng, rng.randint(1, 2), [first])])
    for place, row in enumerate(rows):
        if place == 0:
            _ask_what(talk, row, 1)
        else:
            question = rng.choice(("And this one?", "What about this?", "And what do you see here?", "Now this one."))
            this, that = ("these", "those") if be(noun(row)) == "are" else ("this", "that")
            seen = rng.choice((f"{this} {be(noun(row))}", f"{that} {be(noun(row))}", "here I see"))
            talk.say(question, f"{seen} {_it(row)}", 1)
        more = [*_colour(talk, row), *_facts(talk, row)]
        if more and rng.random() < 0.5:
            talk.say(*rng.choice(more))
    _compare(talk, rows)


def _all_at_once(players: Cast, talk: Talk, number: int) -> None:
    """Two or three drawings in one message, and questions about which is which."""
    rng = talk.rng
    first = players.lead(number)
    indices = [first, *players.others(rng, rng.randint(1, 2), [first])]
    rows = _show(players, talk, rng.sample(indices, len(indices)))
    said = [f"the {ORDINALS[place]} shows {_it(row)}" for place, row in enumerate(rows)]
    question = rng.choice(("What do these pictures show?", "Tell me what is in each picture.", "What is in these?"))
    talk.say(question, listed(said), len(rows))
    _compare(talk, rows)
    row = rng.choice(rows)
    for question, answer in [*_named_facts(row), *_named_colour(row)][:2]:
        talk.say(question, answer)


def _about_a_scene(players: Cast, talk: Talk, number: int) -> None:
    """A picture of several things: what there is, where, and how many."""
    rng = talk.rng
    play = players.led(rng, number, 2, 4)
    talk.images.append(cell(play.draw()))
    talk.drawings.extend(thing.drawing for thing in play.things)
    everything = named_questions.everything(play)
    text = asked(rng, everything.wording, everything.filled, everything.answer, "", 0)
    talk.say(text["user"], text["assistant"], 1)
    options = [*named_questions.places(play), *named_questions.whats(play), *named_questions.colours(play)]
    options.append(named_questions.is_there(players.absent(rng, play), False))
    by_kind: dict[str, list[named_questions.Asked]] = {}
    for one in options:
        by_kind.setdefault(one.kind, []).append(one)
    for kind in rng.sample(sorted(by_kind), min(len(by_kind), rng.randint(2, 4))):
        one = rng.choice(by_kind[kind])
        text = asked(rng, one.wording, one.filled, one.answer, "", 0.2)
        talk.say(text["user"], text["assistant"])
    placed = rng.choice(play.things)
    name, where = noun(placed.drawing), phrase(placed.place)
    if facts := known(name):
        fact = rng.choice(facts)
        talk.say(f"Look at what is {where}. {fact.question}", f"{where} there {be(name)} {a(name)}. {fact.statement}")


def _show(players: Cast, talk: Talk, indices: list[int]) -> list[Drawing]:
    """Add the drawings to the images of the conversation, each at its own shape."""
    rows = [players.drawings[index] for index in indices]
    talk.images.extend(cell(on_white(players.drawings, index)) for index in indices)
    talk.drawings.extend(rows)
    return rows


def _ask_what(talk: Talk, row: Drawing, images: int) -> None:
    one = named_questions.what_is_it(noun(row), row.colour)
    text = asked(talk.rng, one.wording, one.filled, one.answer, "", 0)
    talk.say(text["user"], text["assistant"], images)


Turn = tuple[str, str]
"""A question and its answer."""


def _colour(talk: Talk, row: Drawing) -> list[Turn]:
    if not _has_colour(row):
        return []
    they = "they" if be(noun(row)) == "are" else "it"
    question = talk.rng.choice((f"What colour {be(noun(row))} {they}?", "Which colour do you see most?"))
    return [(question, str(row.colour) if talk.rng.random() < 0.3 else f"{they} {be(noun(row))} mostly {row.colour}")]


def _category(talk: Talk, row: Drawing) -> list[Turn]:
    if row.category in (None, "icon", "shape"):
        return []
    return [("What kind of thing is that?", f"{the(noun(row))} {be(noun(row))} {thing(str(row.category))}")]


def _facts(talk: Talk, row: Drawing) -> list[Turn]:
    facts = known(noun(row))
    return [(fact.question, fact.statement) for fact in talk.rng.sample(facts, min(2, len(facts)))]


def _named_facts(row: Drawing) -> list[Turn]:
    """Something that is known of a thing, asked for by its name."""
    facts = known(noun(row))[:1]
    return [(f"Tell me something about {the(noun(row))}.", fact.statement) for fact in facts]


def _named_colour(row: Drawing) -> list[Turn]:
    if not _has_colour(row):
        return []
    name = noun(row)
    return [(f"And what colour {be(name)} {the(name)}?", f"{the(name)} {be(name)} mostly {row.colour}")]


def _is_it(players: Cast, talk: Talk, row: Drawing) -> Turn:
    """Question that names the thing rightly or wrongly, and the answer that confirms or corrects it."""
    if talk.rng.random() < 0.5:
        return f"Are you sure that this is {a(noun(row))}?", f"yes, it is {a(noun(row))}"
    other = noun(players.drawings[players.others(talk.rng, 1, [players.drawings.index(row)])[0]])
    return f"Is it not {a(other)}?", f"no, it is {a(noun(row))}, not {a(other)}"


def _compare(talk: Talk, rows: list[Drawing]) -> None:
    """Questions about all drawings so far: which is which, and what two of them share."""
    rng = talk.rng
    place = rng.randrange(len(rows))
    row = rows[place]
    options: list[Turn] = [
        (f"Which picture shows {a(noun(row))}?", f"the {ORDINALS[place]} picture shows {a(noun(row))}"),
        (f"What was in the {ORDINALS[place]} picture?", f"it was {_it(row)}"),
        (
            "Name all of them in reverse order.",
            listed(a(noun(one)) for one in reversed(rows)),
        ),
    ]
    one, two = rng.sample(range(len(rows)), 2)
    pair = f"the {ORDINALS[min(one, two)]} and the {ORDINALS[max(one, two)]} picture"
    kinds = [rows[at].category for at in sorted((one, two))]
    if all(kind not in (None, "icon", "shape") for kind in kinds):
        first, second = (noun(rows[at]) for at in sorted((one, two)))
        same = kinds[0] == kinds[1]
        told = f"{the(first)} {be(first)} {thing(str(kinds[0]))}"
        answer = f"yes, both show {thing(str(kinds[0]))}" if same else f"no, {told}, and {the(second)} {be(second)} "
        options.append((f"Do {pair} show the same kind of thing?", answer + ("" if same else thing(str(kinds[1])))))
    colours = {at: rows[at].colour for at in range(len(rows)) if _has_colour(rows[at])}
    for at, colour in colours.items():
        if list(colours.values()).count(colour) == 1 and len(colours) == len(rows):
            answer = f"the {ORDINALS[at]} one, with {the(noun(rows[at]))}"
            options.append((f"Which of the pictures is mostly {colour}?", answer))
    for question, answer in rng.sample(options, min(len(options), rng.randint(1, 3))):
        talk.say(question, answer)


def _it(row: Drawing) -> str:
    return a(noun(row), row.colour)


def _has_colour(row: Drawing) -> bool:
    return row.colour in CHROMATIC and not definite(noun(row))


_KINDS: tuple[Callable[[Cast, Talk, int], None], ...] = (_about_one, _one_after_another, _all_at_once, _about_a_scene)
