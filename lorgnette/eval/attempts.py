"""Prompts put to a model: a batch that fails is asked again one by one, and a question that fails is named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lorgnette.errors import DataError, LorgnetteError
from lorgnette.eval.models.base import Answer, Model
from lorgnette.eval.results.store import Example
from lorgnette.eval.task import Task, truth_of
from lorgnette.sample import Sample
from lorgnette.untrusted import reason_of

log = logging.getLogger("lorgnette")

MOST_FAILED = 8
"""Questions in a row on which a model may fail: after that it is the model, and not the questions."""


def ask(task: Task, model: Model, prompts: Sequence[Sample]) -> Sequence[Any]:
    """The answer to each prompt, as the task wants it: generated, or the likeliest of the candidates.

    A question whose `candidates` are none is open, and is answered by generation all the same.
    """
    if not prompts:
        return []
    if task.answer_by == "generation":
        return model.generate(prompts, max_tokens=task.max_tokens, stop=task.stop)
    lists = [prompt.meta.get("candidates", truth_of(prompt).options or None) for prompt in prompts]
    for prompt, choices in zip(prompts, lists, strict=True):
        if choices is None:
            raise DataError(f"{prompt.name}: no options to choose from; put `options` in its meta")
    scores = model.score(prompts, lists)
    best = [choices[row.index(max(row))] if choices else None for row, choices in zip(scores, lists, strict=True)]
    open_ended = [prompt for prompt, choice in zip(prompts, best, strict=True) if choice is None]
    said = iter(model.generate(open_ended, max_tokens=task.max_tokens, stop=task.stop) if open_ended else ())
    return [next(said) if choice is None else str(choice) for choice in best]


class Attempts:
    """The answers of one process, with the failures that are not stored before another question is answered."""

    def __init__(self, task: Task, model: Model, answered: bool) -> None:
        """answered: whether the model has answered before, in an earlier process."""
        self.task, self.model, self.answered = task, model, answered
        self._held: list[Example] = []
        self._errors: list[Exception] = []

    def answer(self, prompts: Sequence[Sample]) -> tuple[list[Answer], list[str]]:
        """The answer to each prompt, and the text that was read for it; a failure is an empty answer that says why.

        Raises: what the model raised, if it is no fault of a question, or the last `MOST_FAILED` all failed.
        """
        try:
            answers = ask(self.task, self.model, prompts), self.model.rendered_prompts(prompts)
        except Exception as error:
            self._check(error)
            if len(prompts) > 1:
                alone = [self.answer([prompt]) for prompt in prompts]
                return [answer for (answer,), _ in alone], [written for _, (written,) in alone]
            self._errors.append(error)
            if len(self._errors) >= MOST_FAILED:
                raise self._errors[0] from None
            log.warning("%s: not answered: %s", prompts[0].name, _reason(error))
            return [Answer("", declined=_reason(error))], [""]
        if prompts:
            self._errors.clear()
            self.answered = True
        return [Answer.of(answer) for answer in answers[0]], answers[1]

    def settle(self, examples: Sequence[Example]) -> list[Example]:
        """Those that are to be stored: failures at the end are held until a later question is answered."""
        self._held += examples
        held = self._held[len(self._held) - len(self._errors) :]
        settled = self._held[: len(self._held) - len(held)]
        self._held = held
        return settled

    def end(self, examples: Sequence[Example]) -> list[Example]:
        """As `settle`, once all is asked: nothing is held. Raises: what the model raised, if it never answered."""
        if self._errors and not self.answered:
            raise self._errors[0]
        return [*self._held, *examples]

    def _check(self, error: Exception) -> None:
        """Raises: the error, if it concerns the model as a whole: settings, a checkpoint, a server, a disk."""
        if isinstance(error, LorgnetteError) and not isinstance(error, DataError):
            raise error


def _reason(error: Exception) -> str:
    said = reason_of(error)
    return said if isinstance(error, LorgnetteError) else f"{type(error).__name__}: {said}"
