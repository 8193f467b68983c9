"""Rows of kind `scenes`: specifications that the package composes when it reads them, and what is said of each scene.

Row n is a pure function of (split, seed, n).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from corpus.drawn.captions import kind_of, with_article
from corpus.drawn.compose import decks
from corpus.drawn.labels import a, noun_of, sentence
from corpus.drawn.layout import GRIDS_FOR, PLACES, Placed, Scene, arrange, single
from corpus.drawn.named_questions import Asked
from corpus.drawn.question_source import BRIEF, QuestionSource, Row
from corpus.drawn.questions import phrase
from corpus.drawn.scene_tasks import TASKS
from corpus.drawn.wordings import NUMBERS, asked
from lorgnette.data.builtin.drawings import drawings
from lorgnette.errors import DataError

TELL = "tell"
"""The task whose rows are no questions: a scene with a caption that describes it thing by thing."""
SIDE = 128
"""Longest side of a scene, in pixels."""
OFTEN_BRIEF = 0.75
"""Share of questions that ask for a very brief answer as the benchmarks do, where a part is made for the demo."""


def make_scene_questions(split: str, count: int, seed: int) -> Iterator[Row]:
    """Up to six questions about a scene, led by one of a category, a colour or (twice as often) a number."""
    kinds = ("category", "colour", "count", "count")
    source = QuestionSource(split, seed, turns=6, kinds=kinds, size=SIDE, brief=OFTEN_BRIEF)
    return map(source.row, range(count))


def make_scene_positions(split: str, count: int, seed: int) -> Iterator[Row]:
    """Up to four questions about where drawings lie."""
    source = QuestionSource(split, seed, turns=4, kinds=("position",), size=SIDE, brief=OFTEN_BRIEF)
    return map(source.row, range(count))


def make_named_scenes(split: str, count: int, seed: int) -> Iterator[Row]:
    """Questions about things by name, and about how many there are."""
    return map(SceneSource(split, seed, tasks=("named", "count"), brief=OFTEN_BRIEF).row, range(count))


def make_scene_tasks(split: str, count: int, seed: int) -> Iterator[Row]:
    """Questions of every task, which take turns, in the wordings of the instructions about drawings."""
    return map(SceneSource(split, seed, tasks=tuple(TASKS)).row, range(count))


def make_scene_descriptions(split: str, count: int, seed: int) -> Iterator[Row]:
    """Scenes described thing by thing."""
    return map(SceneSource(split, seed, tasks=(TELL,)).row, range(count))


def make_drawing_questions(split: str, count: int, seed: int) -> Iterator[Row]:
    """One question to a scene, as many of each kind; answers and drawings take turns within each form."""
    return map(QuestionSource(split, seed, size=SIDE).row, range(count))


class SceneSource:
    """Scenes with what is said about them: questions of `scene_tasks.TASKS`, or the whole scene (`tell`)."""

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        *,
        tasks: Sequence[str] = tuple(TASKS),
        size: int = SIDE,
        brief: float = 0.0,
    ) -> None:
        """tasks: they take turns; one that is named twice has two. size: longest side of a scene, in pixels.
        brief: how often a question ends as the benchmarks' do, asking for a very brief answer, which then is a word.

        Raises: DataError if the split or a task is unknown.
        """
        unknown = [task for task in tasks if task not in (*TASKS, TELL)]
        if unknown or not tasks:
            raise DataError(f"tasks about scenes {list(tasks)}: use some of {', '.join((*TASKS, TELL))}")
        self.split, self.seed, self.tasks, self.side, self.brief = split, seed, tuple(tasks), size, brief
        drawings(split)

    def row(self, index: int) -> Row:
        """Row `index`; its `kind` names the task."""
        number, turn = divmod(index, len(self.tasks))
        task = self.tasks[turn]
        number = number * self.tasks.count(task) + self.tasks[:turn].count(task)
        if task == TELL:
            return self._told(number)
        drawn = TASKS[task](self.split, self.seed, number, self.side)
        texts = [self._worded(one, drawn.rng, drawn.brief) for one in drawn.asked]
        return {**drawn.scene.columns(), "texts": texts, "caption": None, "kind": task, "form": None}

    def _worded(self, one: Asked, rng: random.Random, brief: float) -> dict[str, str | None]:
        if rng.random() < self.brief:
            question = rng.choice(one.wording.asked).format(**one.filled)
            question = question[:1].upper() + question[1:] + BRIEF
            return {"user": question, "assistant": one.answer, "source": None}
        return {**asked(rng, one.wording, one.filled, one.answer, "", brief), "source": None}

    def _told(self, number: int) -> Row:
        """A scene, half of its things mirrored, and a caption of all that it shows."""
        rng = random.Random(f"tell {self.seed} {self.split} {number}")
        scene = self._scene(number, rng)
        mirrored = [place for place in range(len(scene.placed)) if rng.random() < 0.5]
        return {**scene.columns(mirrored), "texts": None, "caption": told(scene), "kind": TELL, "form": None}

    def _scene(self, number: int, rng: random.Random) -> Scene:
        """One to six drawings; each drawing of the split leads as often as the others."""
        deck, table = decks(self.split, self.seed), drawings(self.split)
        if (count := rng.randint(1, 6)) == 1:
            return single(rng, table, deck.everything[number % len(deck.everything)], self.side)
        indices = [deck.scenic[number % len(deck.scenic)], *rng.choices(deck.scenic, k=count - 1)]
        grid = rng.choice(GRIDS_FOR[count])
        return arrange(rng, table, indices, grid, rng.sample(range(grid.columns * grid.rows), count), self.side)


def told(scene: Scene) -> str:
    """ "Two things: at the left a red apple, a kind of food; at the right a blue drawing." In reading order."""
    things = sorted(scene.placed, key=lambda thing: PLACES.index(thing.place))
    if len(things) == 1:
        return sentence(_thing(things[0]))
    listed = "; ".join(f"{phrase(thing.place)} {_thing(thing)}" for thing in things)
    return sentence(f"{NUMBERS[len(things)]} things: {listed}")


def _thing(thing: Placed) -> str:
    row = thing.drawing
    noun = noun_of(row)
    if noun is None:
        name = row.category or "drawing"
        return with_article(f"{row.colour} {name}" if row.colour else name, name)
    kind = f", {kind_of(row.category)}" if row.category and row.category not in noun.split() else ""
    return a(noun, row.colour) + kind
