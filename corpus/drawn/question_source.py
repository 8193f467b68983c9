"""Scenes made for questions, with their answers: kinds, forms and answers take turns.

Row n is a pure function of the settings and n.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from corpus.drawn.compose import Composer, decks
from corpus.drawn.layout import Scene
from corpus.drawn.questions import FORMS, KINDS, SCHEDULE, Form
from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.prompts import VERY_BRIEF
from lorgnette.errors import DataError

Row = dict[str, Any]
BRIEF = f"\n{VERY_BRIEF}"
"""Asks for a short answer, as the benchmarks' templates of the paper do."""


class QuestionSource:
    """Scenes, each with one or more questions about it and their answers."""

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

    def row(self, index: int) -> Row:
        """Row `index` of kind `scenes`: the scene, with its questions and answers."""
        meta = self.describe(index)
        rng = random.Random(f"brief {self.seed} {self.split} {index}")
        texts = [
            {
                "user": turn["question"] + BRIEF * (rng.random() < self.brief),
                "assistant": turn["answer"],
                "source": None,
            }
            for turn in meta["turns"]
        ]
        said = {"texts": texts, "caption": None, "kind": meta["kind"], "form": meta["form"]}
        return {**meta["scene"].columns(), **said}

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
        """The form that leads sample `index`, and the number of samples it led before; forms are used in rotation."""
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
