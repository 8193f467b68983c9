"""Diagrams of who eats whom, with questions as of a textbook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corpus.rendered.food_drawing import drawn
from corpus.rendered.habitats import HABITATS
from corpus.rendered.lot import Lot
from corpus.rendered.noise import coloured
from corpus.rendered.paper import Question, Sheet
from corpus.rendered.rows import Row, choose, instruct, rows, said
from corpus.rendered.texts import listed

LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Web:
    """Living things of a place, from the plants up, and who eats whom among them."""

    place: str
    names: tuple[str, ...]

    def foods(self, eater: str) -> tuple[str, ...]:
        """Prey of a species; empty for a plant."""
        return tuple(food for food in HABITATS[self.place].get(eater, ()) if food in self.names)

    def eaters(self, food: str) -> tuple[str, ...]:
        return tuple(name for name in self.names if food in self.foods(name))

    @property
    def arrows(self) -> list[tuple[str, str]]:
        """Arrows of the web: pairs of the eaten and the eater."""
        return [(food, eater) for eater in self.names for food in self.foods(eater)]

    def level(self, name: str) -> int:
        """0 for plants, else one more than the highest level of what it eats."""
        return max((self.level(food) + 1 for food in self.foods(name)), default=0)


def make_food_chains(split: str, count: int, seed: int) -> Iterator[Row]:
    """Food webs with questions; some give answers to choose from."""
    return rows("food_chains", split, count, seed, _row)


def _row(lot: Lot) -> Row:
    sheet = food_web(lot)
    texts = []
    for question in choose(lot, sheet.questions, lot.between(2, 4)):
        names = list(sheet.facts.names)
        if question.answer.lower() in names and len(names) >= len(LETTERS) and lot.chance(60):
            texts.append(_with_choices(lot, question, names, sheet.facts))
        else:
            texts.append(said(lot, question))
    return instruct(coloured(sheet.paper.image), texts, "food_chains")


def _with_choices(lot: Lot, question: Question, names: list[str], facts: Web) -> tuple[str, str]:
    """The question with four answers to choose from; the answer is a letter."""
    right = question.answer.lower()
    choices = [right, *lot.some([name for name in names if name != right], len(LETTERS) - 1)]
    choices = lot.some(choices, len(choices))
    lines = [f"{letter}. {choice.capitalize()}" for letter, choice in zip(LETTERS, choices, strict=True)]
    text = "\n".join((f"Question: {question.text}", "Choices:", *lines, "Answer with the letter."))
    return text, f"Answer: {LETTERS[choices.index(right)]}"


def food_web(lot: Lot) -> Sheet:
    """A diagram with its questions."""
    while True:
        facts = lot.draw(lambda: _web(lot), identity=lambda web: f"{web.place}: {', '.join(sorted(web.names))}")
        paper = drawn(lot, facts)
        if paper is not None:
            return Sheet("food web", facts, paper, tuple(_questions(lot, facts)))


def _web(lot: Lot) -> Web:
    """Plants of a place, and eaters that find their food there, up to somebody who eats eaters."""
    place = lot.one(sorted(HABITATS))
    eats = HABITATS[place]
    plants = sorted({food for foods in eats.values() for food in foods} - eats.keys())
    size = lot.between(4, 7)
    while True:
        names = lot.some(plants, lot.between(1, 2))
        while len(names) < size:
            fed = [eater for eater, foods in eats.items() if eater not in names and set(foods) & set(names)]
            if not fed:
                break
            names.append(lot.one(fed))
        web = Web(place, tuple(names))
        joined = all(web.foods(name) or web.eaters(name) for name in names)
        if len(names) == size and joined and max(map(web.level, names)) >= 2:
            return web


def _questions(lot: Lot, facts: Web) -> list[Question]:
    asked = [
        Question("arrows", (), "How many arrows are in the diagram?", str(len(facts.arrows))),
        Question("names", (), "How many living things does the diagram name?", str(len(facts.names))),
        Question("place", (), "Of which place does the diagram show life?", facts.place.capitalize()),
    ]
    plants = [name for name in facts.names if not facts.foods(name)]
    asked.append(Question("plants", (), "Which things in the diagram eat nothing else there?", _list(plants)))
    top = [name for name in facts.names if not facts.eaters(name)]
    asked.append(Question("top", (), "Which living things in the diagram are eaten by none of the others?", _list(top)))
    for name in facts.names:
        foods, eaters = facts.foods(name), facts.eaters(name)
        if foods:
            asked.append(Question("eats", (name,), f"What does the {name} eat in this diagram?", _list(foods)))
        if eaters:
            asked.append(Question("eaten", (name,), f"By what is the {name} eaten in this diagram?", _list(eaters)))
        if len(foods) == 1:
            text = f"Which living thing is the only food of the {name} here?"
            asked.append(Question("only food", (name,), text, _list(foods)))
    for food, eater in facts.arrows:
        read = f"An arrow leads from {food} to {eater}, so the {eater} eats {food}."
        text = (
            f"If the {eater} died out here, what would first happen to the amount of {food}: would it grow or shrink?"
        )
        steps = f"{read} Without the {eater}, {food} has one eater fewer."
        asked.append(Question("fewer eaters", (eater, food), text, "grow", steps, also=("it would grow",)))
        if facts.foods(eater) == (food,):
            text = f"If {food} died out here, would the {eater} soon become more or less common?"
            steps = f"{read} No other arrow leads to {eater}, so it would have nothing to eat."
            asked.append(Question("no food", (food, eater), text, "less common", steps, also=("less",)))
    first, last = lot.one(plants), lot.one(top)
    chains = list(_chains(facts, first, last))
    if len(chains) == 1 and len(chains[0]) > 2:
        text = f"Name the food chain from the {first} to the {last}, in order."
        asked.append(Question("chain", (first, last), text, ", ".join(chains[0]).capitalize()))
    return asked


def _list(names: tuple[str, ...] | list[str]) -> str:
    """Names as an answer: in the order of the alphabet."""
    return listed(sorted(names)).capitalize()


def _chains(facts: Web, first: str, last: str) -> Iterator[list[str]]:
    """Every way from one to the other along the arrows."""
    if first == last:
        yield [first]
    for eater in facts.eaters(first):
        for rest in _chains(facts, eater, last):
            yield [first, *rest]
