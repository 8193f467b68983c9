"""The built-in sources of samples: captions of single drawings, and questions about scenes.

Sample n is a pure function of the source's settings and n. Nothing is remembered: any worker may make it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from lorgnette.data.builtin.captions import caption
from lorgnette.data.builtin.compose import Composer, decks
from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.builtin.questions import CATEGORIES, COLOURS, FORMS, KINDS, RELATIONS, SCHEDULE, Form, phrase
from lorgnette.data.builtin.scenes import PLACES, Scene, single
from lorgnette.data.prompts import VERY_BRIEF
from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment, Text, Turn

BRIEF = f"\n{VERY_BRIEF}"
"""Asks for a short answer, as the benchmarks' templates of the paper do."""


class CaptionSource:
    """A drawing and a sentence about it. `len(drawings(split))` samples show each drawing once, the next ones anew."""

    size = None
    """Samples held: there is no last one."""

    def __init__(self, split: str = "train", seed: int = 0, *, size: int = 128) -> None:
        """size: longest side of the picture, in pixels. Raises: DataError if the split is unknown."""
        self.split, self.seed, self.side = split, seed, size
        drawings(split)

    def __getitem__(self, index: int) -> Sample:
        """The picture, then the caption, which is learned. `meta` names the drawing."""
        order = decks(self.split, self.seed).everything
        table = drawings(self.split)
        epoch, place = divmod(index, len(order))
        rng = random.Random(f"captions {self.seed} {self.split} {index}")
        row = table[order[place]]
        picture = single(rng, table, order[place], self.side).draw(table)
        meta = {
            "name": f"captions/{self.split}/{self.seed}/{index}",
            "source": "captions",
            "epoch": epoch,
            "drawings": [row.id],
        }
        return Sample((Image(picture), Text(caption(row, rng), learn=True)), meta)


class QuestionSource:
    """A scene and one or more questions about it, as a conversation of which only the answers are learned."""

    size = None
    """Samples held: there is no last one."""

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        *,
        turns: int = 1,
        kinds: Sequence[str] = KINDS,
        size: int = 128,
        brief: float = 0.0,
    ) -> None:
        """turns: the most questions asked about one scene (fewer where less can be asked); kinds: which of the four,
        each leading equally many samples; size: longest side of the scene in pixels; brief: how often a question ends
        as the benchmarks' do, asking for a very brief answer.

        Raises: DataError if the split or a kind is unknown, or there is nothing to ask.
        """
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise DataError(f"kinds of questions {list(kinds)}: use one or more of {', '.join(KINDS)}")
        if turns < 1 or size < 48:
            raise DataError(f"questions need at least 1 turn and scenes of 48 pixels, not {turns} and {size}")
        self.split, self.seed, self.turns, self.kinds, self.side = split, seed, turns, tuple(kinds), size
        self.brief = brief
        drawings(split)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`: the picture, then questions and answers in turn. `meta` is what `describe` returns."""
        meta = self.describe(index)
        rng = random.Random(f"brief {self.seed} {self.split} {index}")
        segments: list[Segment] = [Turn("user"), Image(meta["scene"].draw(drawings(self.split)))]
        for number, turn in enumerate(meta["turns"]):
            question = turn["question"] + BRIEF * (rng.random() < self.brief)
            segments += [Turn("user")] * (number > 0)
            segments += [Text(question), Turn("assistant"), Text(turn["answer"], learn=True)]
        return Sample(tuple(segments), meta)

    def describe(self, index: int) -> dict[str, Any]:
        """All of sample `index` but the picture. Its first question leads: the scene was made for it, and over the
        samples every kind, every form of the kind and every answer of the form takes its turn. Further questions are
        what else the scene allows.

        Returns `kind`, `form`, `question`, `answer` and what was `filled` into the wording of the first question; the
        same for all questions in `turns`; the ids of the `drawings`; and the `scene`.
        """
        form, number = self._turn(index)
        rng = random.Random(f"questions {self.seed} {self.split} {index}")
        made = Composer(decks(self.split, self.seed), self.side).compose(form, number, rng)
        asked = [(form, made.filled, made.answer)]
        if self.turns > 1:
            asked += self._more(made.scene, asked[0], rng)
        turns = []
        for form, filled, answer in asked:
            question = rng.choice(form.wordings).format(**filled)
            asked_of = {"kind": form.kind, "form": form.name, "filled": filled}
            turns.append({**asked_of, "question": question, "answer": answer})
        name = f"questions/{self.split}/{self.seed}/{index}"
        ids = [thing.drawing.id for thing in made.scene.placed]
        return {"name": name, "source": "questions", **turns[0], "drawings": ids, "scene": made.scene, "turns": turns}

    def _turn(self, index: int) -> tuple[Form, int]:
        """Which form leads sample `index`, and how many samples it led before: kinds and their forms take turns."""
        number, kind = divmod(index, len(self.kinds))
        schedule = SCHEDULE[self.kinds[kind]]
        number, place = divmod(number, len(schedule))
        name = schedule[place]
        return FORMS[name], number * schedule.count(name) + schedule[:place].count(name)

    def _more(self, scene: Scene, first: tuple[Form, dict[str, str], str], rng: random.Random) -> Iterator[Any]:
        """Up to `turns - 1` other questions about the scene, of forms in random order, never the same one twice."""
        forms = [form for form in FORMS.values() if form.kind in self.kinds]
        asked = [(first[0].name, first[1])]
        for _ in range(3):  # at most three questions of each form
            for form in rng.sample(forms, len(forms)):
                options = [option for option in form.options(scene) if (form.name, option[0]) not in asked]
                if options:
                    filled, answer = _balanced_choice(form, options, rng)
                    asked.append((form.name, filled))
                    yield form, filled, answer
                    if len(asked) == self.turns:
                        return


def _balanced_choice(
    form: Form, options: list[tuple[dict[str, str], str]], rng: random.Random
) -> tuple[dict[str, str], str]:
    """One of the options: first one of their answers, each equally likely, then one of the questions that have it."""
    answer = rng.choice(sorted({answer for _, answer in options}))
    return rng.choice([option for option in options if option[1] == answer])


def questions_for_evaluation(split: str = "test", count: int = 400, seed: int = 0, *, size: int = 128) -> list[Sample]:
    """`count` questions, one to a scene: as many of each kind; answers and drawings take turns within each form."""
    source = QuestionSource(split, seed, size=size)
    return [source[index] for index in range(count)]


def tokenizer_texts(count: int = 4000) -> Iterator[str]:
    """Texts to train a small tokenizer on: captions, questions and answers like those of the train split."""
    table = drawings("train")
    order = decks("train", 0).everything
    rng = random.Random("tokenizer texts")
    wordings = [wording for form in FORMS.values() for wording in form.wordings]
    for index in range(count):
        yield caption(table[order[index % len(order)]], rng)
        colour, other = rng.sample(COLOURS, 2)
        filled = {
            "colour": colour,
            "other": other,
            "category": rng.choice(CATEGORIES),
            "place": phrase(rng.choice(PLACES)),
        }
        yield rng.choice(wordings).format(**filled, relation=rng.choice(tuple(RELATIONS)))
        yield rng.choice(rng.choice(tuple(FORMS.values())).answers)
