"""The built-in source of scenes: told in full, or asked about as the instructions of the corpus are, without end.

Sample n is a pure function of the source's settings and n. Nothing is remembered: any worker may make it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lorgnette.data.builtin.captions import kind_of, with_article
from lorgnette.data.builtin.compose import decks
from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.builtin.labels import a, noun_of, sentence
from lorgnette.data.builtin.named_questions import Asked
from lorgnette.data.builtin.questions import phrase
from lorgnette.data.builtin.scene_tasks import TASKS
from lorgnette.data.builtin.scenes import GRIDS_FOR, PLACES, Placed, Scene, arrange, single
from lorgnette.data.builtin.sources import BRIEF
from lorgnette.data.builtin.wordings import NUMBERS, asked
from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment, Text, Turn

TELL = "tell"
"""The task whose samples are no questions: what a scene shows, thing by thing."""


class SceneSource:
    """Scenes with what is said about them: questions of `scene_tasks.TASKS`, or the whole scene (`tell`)."""

    size = None
    """Samples held: there is no last one."""

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        *,
        tasks: Sequence[str] = tuple(TASKS),
        size: int = 128,
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

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`. `meta` names the task, and the drawings that the scene is made of."""
        number, turn = divmod(index, len(self.tasks))
        task = self.tasks[turn]
        number = number * self.tasks.count(task) + self.tasks[:turn].count(task)
        name = f"scenes/{self.split}/{self.seed}/{index}"
        meta = {"name": name, "source": "scenes", "task": task}
        if task == TELL:
            return self._told(number, meta)
        row = TASKS[task](self.split, self.seed, number, self.side)
        segments: list[Segment] = []
        for place, one in enumerate(row.asked):
            question, answer = self._worded(one, row.rng, row.brief)
            picture = [Image(row.picture)] if place == 0 else []
            segments += [Turn("user"), *picture, Text(question), Turn("assistant"), Text(answer, learn=True)]
        return Sample(tuple(segments), meta | {"drawings": row.origin})

    def _worded(self, one: Asked, rng: random.Random, brief: float) -> tuple[str, str]:
        if rng.random() < self.brief:
            question = rng.choice(one.wording.asked).format(**one.filled)
            return question[:1].upper() + question[1:] + BRIEF, one.answer
        text = asked(rng, one.wording, one.filled, one.answer, "", brief)
        return text["user"], text["assistant"]

    def _told(self, number: int, meta: dict[str, Any]) -> Sample:
        """A scene, half of its things mirrored, and what it shows."""
        rng = random.Random(f"tell {self.seed} {self.split} {number}")
        scene = self._scene(number, rng)
        mirrored = [place for place in range(len(scene.placed)) if rng.random() < 0.5]
        meta["drawings"] = [thing.drawing.id for thing in scene.placed]
        picture = scene.draw(drawings(self.split), mirrored)
        return Sample((Image(picture), Text(told(scene), learn=True)), meta)

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
