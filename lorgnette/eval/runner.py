"""Run a task: ask an answerer batch by batch, store each answer as it comes, and score them all at the end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.eval.answerer import Answerer, identity_of
from lorgnette.eval.blind import blinded
from lorgnette.eval.pictures import image_digest, thumbnail
from lorgnette.eval.results import Example, Result, ResultsFolder, judge
from lorgnette.eval.task import Task, prompt_of, transcript, truth_of
from lorgnette.sample import Sample


def evaluate(
    task: Task,
    answerer: Answerer,
    *,
    blind: bool = False,
    limit: int | None = None,
    batch_size: int = 16,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> Result:
    """Ask every sample of the task (or `limit` of them, drawn by `seed`) and score the answers.

    blind: show each question another sample's pictures. folder: where results are stored; a run that was cut off goes
    on there, and loses at most the batch in flight. progress: called with (done, total) after each batch. Neither
    `batch_size` nor an interruption changes a score.
    Raises: DataError for a task whose size is not as declared, SettingsError if `folder` holds other results.
    """
    size = len(task.samples)
    if task.expected_size not in (None, size):
        raise DataError(f"task {task.name}: holds {size} samples, not {task.expected_size}; get all its files")
    chosen = _choose(size, limit, seed)
    take = blinded(task.samples, seed) if blind else task.samples.__getitem__
    settings = settings_of(task, answerer, blind=blind, limit=limit, seed=seed)
    store = ResultsFolder(folder) if folder is not None else None
    examples = store.begin(settings) if store else []
    done = {example.index for example in examples}
    waiting = [index for index in chosen if index not in done]
    for start in range(0, len(waiting), batch_size):
        indices = waiting[start : start + batch_size]
        prompts = [prompt_of(take(index)) for index in indices]
        answers = ask(task, answerer, prompts)
        batch = [_example(i, prompt, answer) for i, prompt, answer in zip(indices, prompts, answers, strict=True)]
        if store:
            store.append(batch, _new_pictures(store, prompts))
        examples += batch
        if progress:
            progress(len(examples), len(chosen))
    result = judge(settings, examples)
    if store:
        store.finish(result)
    return result


def ask(task: Task, answerer: Answerer, prompts: Sequence[Sample]) -> list[str]:
    """The answer to each prompt, as the task wants it: generated, or the likeliest of the options."""
    if task.answer_by == "generation":
        return answerer.generate(prompts, max_tokens=task.max_tokens, stop=task.stop)
    options = [truth_of(prompt).options for prompt in prompts]
    for prompt, choices in zip(prompts, options, strict=True):
        if not choices:
            raise DataError(f"{prompt.name}: no options to choose from; put `options` in its meta")
    scores = answerer.score(prompts, options)
    return [choices[row.index(max(row))] for row, choices in zip(scores, options, strict=True)]


def settings_of(task: Task, answerer: Answerer, **conditions: Any) -> dict[str, Any]:
    """All that decides the answers, as stored beside them."""
    fields = ("name", "version", "split", "metric", "prompt", "answer_by", "max_tokens")
    described = {"task" if field == "name" else field: getattr(task, field) for field in fields}
    described |= {"stop": list(task.stop), "size": len(task.samples), "model": identity_of(answerer)}
    return {**described, **conditions}


def _choose(size: int, limit: int | None, seed: int) -> list[int]:
    """Indices to ask, in order. A smaller limit chooses a subset of what a larger one does."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return sorted(order[:limit])


def _example(index: int, prompt: Sample, answer: str) -> Example:
    kind, images = str(prompt.meta.get("kind", "")), tuple(image_digest(image.source) for image in prompt.images)
    return Example(index, prompt.name, kind, transcript(prompt), answer, truth_of(prompt), images)


def _new_pictures(store: ResultsFolder, prompts: Sequence[Sample]) -> dict[str, bytes]:
    """Small copies of the pictures that the folder does not hold yet."""
    shown = {image_digest(image.source): image.source for prompt in prompts for image in prompt.images}
    return {digest: thumbnail(source) for digest, source in shown.items() if not store.picture(digest).exists()}
