"""Scenes made for an answer: given a form of question and the answer wanted, a scene in which that is the right one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from corpus.drawn.colours import NEIGHBOURS
from corpus.drawn.layout import GRIDS_FOR, GRIDS_WITH, Grid, Scene, arrange, single
from corpus.drawn.questions import CATEGORIES, COLOURS, RELATIONS, Form, phrase
from lorgnette.data.builtin.drawings import Drawings, drawings


@dataclass(frozen=True)
class Made:
    """A scene, and the form's question about it: what fills the wording, and the answer."""

    scene: Scene
    filled: dict[str, str]
    answer: str


Deck = tuple[int, ...]
"""Drawings in a shuffled order. Taking card n of it for use n shows every drawing equally often."""


@dataclass(frozen=True)
class Decks:
    """The drawings of a split, shuffled by the seed alone, by what they can be used for. No deck is empty."""

    drawings: Drawings
    everything: Deck
    scenic: Deck
    """All that may stand in a scene of several; so may those of the next two."""
    by_category: dict[str, Deck]
    by_colour: dict[str, Deck]
    targets: dict[str, dict[str, Deck]]
    """For a form whose answer is a category or colour: what may be asked about, by answer."""

    def answers(self, form: Form) -> tuple[str, ...]:
        """The answers of a form that this split has drawings for."""
        decks = self.targets.get(form.name)
        return form.answers if decks is None else tuple(answer for answer in form.answers if answer in decks)


@lru_cache(maxsize=8)
def decks(split: str, seed: int) -> Decks:
    """The decks of a split, shuffled once per process and seed."""
    return shuffled_decks(drawings(split), seed)


def shuffled_decks(table: Drawings, seed: int) -> Decks:
    """The decks of these drawings."""
    everything = range(len(table))
    whole = [index for index in everything if table[index].whole]
    coloured = [index for index in whole if table[index].colour in COLOURS]
    categorised = [index for index in whole if table[index].category in CATEGORIES]
    rng = random.Random(f"decks {seed} {table.split}")

    def by_category(indices: Sequence[int]) -> dict[str, Deck]:
        return _sorted([(table[index].category, index) for index in _shuffled(indices, rng)], CATEGORIES)

    def by_colour(indices: Sequence[int]) -> dict[str, Deck]:
        return _sorted([(table[index].colour, index) for index in _shuffled(indices, rng)], COLOURS)

    targets = {
        "category of one": by_category(everything),
        "category by place": by_category(whole),
        "category by colour": by_category(coloured),
        "colour of one": by_colour(everything),
        "colour by place": by_colour(whole),
        "colour by category": by_colour(categorised),
    }
    return Decks(
        table, _shuffled(everything, rng), _shuffled(whole, rng), by_category(whole), by_colour(whole), targets
    )


def _shuffled(indices: Sequence[int], rng: random.Random) -> Deck:
    return tuple(rng.sample(indices, len(indices)))


def _sorted(pairs: list[tuple[str | None, int]], names: Sequence[str]) -> dict[str, Deck]:
    """The indices that go with each name, in their order; names with none are left out."""
    found = {name: tuple(index for key, index in pairs if key == name) for name in names}
    return {name: deck for name, deck in found.items() if deck}


@dataclass(frozen=True)
class Composer:
    """Composes scenes from the decks of one split."""

    decks: Decks
    size: int

    def compose(self, form: Form, number: int, rng: random.Random) -> Made:
        """Scene `number` of those made for `form`, with its question and answer. Answers, and the drawings asked about,
        take turns."""
        answers = self.decks.answers(form)
        answer = answers[number % len(answers)]
        make = getattr(self, "_" + form.name.replace(" ", "_"))
        scene, filled = make(answer, number, rng)
        return Made(scene, filled, answer)

    # Each method below makes the scene of one form, and says what fills the question's wording.

    def _category_of_one(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        return self._one(self._target("category of one", answer, number), rng), {}

    def _category_by_place(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._target("category by place", answer, number)
        scene = self._scatter([target, *self._any(rng.randint(1, 3), rng)], rng)
        return scene, {"place": _phrase(scene)}

    def _category_by_colour(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._target("category by colour", answer, number)
        scene = self._scatter([target, *self._of_other_colours([target], rng.randint(1, 3), rng)], rng)
        return scene, {"colour": str(scene.placed[0].colour)}

    def _colour_of_one(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        return self._one(self._target("colour of one", answer, number), rng), {}

    def _colour_by_place(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._target("colour by place", answer, number)
        scene = self._scatter([target, *self._any(rng.randint(1, 3), rng)], rng)
        return scene, {"place": _phrase(scene)}

    def _colour_by_category(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._target("colour by category", answer, number)
        scene = self._scatter([target, *self._of_other_categories([target], rng.randint(1, 3), rng)], rng)
        return scene, {"category": str(scene.placed[0].category)}

    def _count_of_all(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        return self._scatter(self._any(int(answer), rng), rng), {}

    def _count_of_colour(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        colour = rng.choice(self.colours)
        there = [rng.choice(self.decks.by_colour[colour]) for _ in range(int(answer))]
        others = [name for name in self.colours if name != colour and name not in NEIGHBOURS[colour]]
        for _ in range(rng.randint(0 if there else 1, 6 - len(there) - (len(there) < 3))):
            there.append(rng.choice(self.decks.by_colour[rng.choice(others)]))
        return self._scatter(there, rng), {"colour": colour}

    def _where(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._coloured(number, rng)
        indices = [target, *self._of_other_colours([target], rng.randint(1, 3), rng)]
        grid = rng.choice(GRIDS_WITH[answer, len(indices)])
        first = grid.places.index(answer)
        scene = self._arrange(indices, grid, [first, *_rest(grid, [first], len(indices), rng)], rng)
        return scene, {"colour": str(scene.placed[0].colour)}

    def _side_by_side(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        return self._colours_related("left of" if answer == "left" else "right of", number, rng)

    def _one_above_other(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        return self._colours_related(answer, number, rng)

    def _related_categories(self, answer: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        relation = rng.choice(tuple(RELATIONS))
        target = self._categorised(number, rng)
        indices = [target, *self._of_other_categories([target], rng.randint(1, 2), rng)]
        scene = self._relate(indices, relation if answer == "yes" else OPPOSITE[relation], rng)
        one, two = scene.placed[:2]
        return scene, {"category": str(one.category), "relation": relation, "other": str(two.category)}

    # Ingredients.

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours that the split has scenic drawings of."""
        return tuple(self.decks.by_colour)

    def _target(self, form: str, answer: str, number: int) -> int:
        decks = self.decks.targets[form]
        return _card(decks[answer], number // len(decks))

    def _coloured(self, number: int, rng: random.Random) -> int:
        """A drawing of a random colour."""
        return _card(self.decks.by_colour[rng.choice(self.colours)], number)

    def _categorised(self, number: int, rng: random.Random) -> int:
        """A drawing of a random category."""
        return _card(self.decks.by_category[rng.choice(tuple(self.decks.by_category))], number)

    def _one(self, index: int, rng: random.Random) -> Scene:
        return single(rng, self.decks.drawings, index, self.size)

    def _any(self, count: int, rng: random.Random) -> list[int]:
        return [rng.choice(self.decks.scenic) for _ in range(count)]

    def _of_other_colours(self, indices: list[int], count: int, rng: random.Random) -> list[int]:
        """Up to `count` drawings, each of a colour that no other one of the scene may be mistaken for."""
        taken = {str(self.decks.drawings[index].colour) for index in indices}
        found: list[int] = []
        for _ in range(count):
            free = [name for name in self.colours if name not in taken and NEIGHBOURS[name].isdisjoint(taken)]
            if not free:
                break
            colour = rng.choice(free)
            taken.add(colour)
            found.append(rng.choice(self.decks.by_colour[colour]))
        return found

    def _of_other_categories(self, indices: list[int], count: int, rng: random.Random) -> list[int]:
        taken = {self.decks.drawings[index].category for index in indices}
        names = rng.sample([name for name in self.decks.by_category if name not in taken], count)
        return [rng.choice(self.decks.by_category[name]) for name in names]

    def _colours_related(self, relation: str, number: int, rng: random.Random) -> tuple[Scene, dict[str, str]]:
        target = self._coloured(number, rng)
        indices = [target, *self._of_other_colours([target], rng.randint(1, 2), rng)]
        scene = self._relate(indices, relation, rng)
        return scene, {"colour": str(scene.placed[0].colour), "other": str(scene.placed[1].colour)}

    def _relate(self, indices: list[int], relation: str, rng: random.Random) -> Scene:
        """The first drawing stands in the relation to the second."""
        grid, one, two = rng.choice(_pairs(relation, len(indices)))
        return self._arrange(indices, grid, [one, two, *_rest(grid, [one, two], len(indices), rng)], rng)

    def _scatter(self, indices: list[int], rng: random.Random) -> Scene:
        grid = rng.choice(GRIDS_FOR[len(indices)])
        return self._arrange(indices, grid, _rest(grid, [], len(indices), rng), rng)

    def _arrange(self, indices: list[int], grid: Grid, cells: list[int], rng: random.Random) -> Scene:
        return arrange(rng, self.decks.drawings, indices, grid, cells, self.size)


OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


@cache
def _pairs(relation: str, count: int) -> tuple[tuple[Grid, int, int], ...]:
    """Every grid and pair of its cells of which the first stands in the relation to the second."""
    return tuple(
        (grid, one, two)
        for grid in GRIDS_FOR[count]
        for one in range(grid.columns * grid.rows)
        for two in range(grid.columns * grid.rows)
        if _stands(relation, one % grid.columns - two % grid.columns, one // grid.columns - two // grid.columns)
    )


def _stands(relation: str, across: int, down: int) -> bool:
    return {"above": down < 0, "below": down > 0, "left of": across < 0, "right of": across > 0}[relation]


def _rest(grid: Grid, taken: list[int], count: int, rng: random.Random) -> list[int]:
    """Different free cells for the drawings of `count` that have none yet."""
    return rng.sample([cell for cell in range(grid.columns * grid.rows) if cell not in taken], count - len(taken))


def _card(deck: Deck, use: int) -> int:
    return deck[use % len(deck)]


def _phrase(scene: Scene) -> str:
    return phrase(scene.placed[0].place)
