"""Run a task: ask a model batch by batch, store each answer as it comes, and score them all at the end."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorgnette import plugins
from lorgnette.data.record import Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.errors import DataError, ImageError
from lorgnette.eval.attempts import Attempts
from lorgnette.eval.image_checks import check_image, image_digest
from lorgnette.eval.metrics import metric_named
from lorgnette.eval.models.base import Answer, Model
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.eval.shuffled_images import blinded
from lorgnette.eval.task import Task, prompt_of, transcript, truth_of
from lorgnette.report.thumbnails import thumbnail
from lorgnette.sample import Sample
from lorgnette.version import code

IndexedPrompt = tuple[int, Sample]
"""A question's place in the task, and its prompt without examples before it."""


def evaluate(
    task: Task | str | Path,
    model: Model | str | Path,
    *,
    blind: bool = False,
    limit: int | None = None,
    batch_size: int = 16,
    folder: str | Path | ResultsFolder | None = None,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> Result:
    """Ask every sample of the task (or `limit` of them, drawn by `seed`) and score the answers.

    task: a value, the name of a benchmark, or the path of a file of rows. model: one that is open, or what
    `lorgnette eval --model` takes: a folder, a hub id, or the address of a server.
    blind: show each question another sample's pictures. folder: where results are stored; a run that was cut off goes
    on there, and loses at most the batch in flight. One with a rank asks its share of the questions only; the result is
    of all that is there, and `missing` says how many are not: the process that finds none missing stores the scores.
    progress: called with (done, total) of this process's share, before the first batch and after each.
    Neither `batch_size`, nor an interruption, nor the number of ranks changes a score. A row that cannot be read is not
    asked: the result names it. A question on which the model fails is scored as an empty answer, and named too.
    Raises: DataError for a task whose size is not as declared, SettingsError if `folder` holds other results.
    """
    model = model if isinstance(model, Model) else _model_named(str(model), batch_size)
    task = task if isinstance(task, Task) else _task_named(str(task), model)
    size = len(task.samples)
    if task.expected_size not in (None, size):
        raise DataError(f"task {task.name}: holds {size} samples, not {task.expected_size}; get all its files")
    chosen = _choose(task, limit, seed)
    settings = settings_of(task, model, blind=blind, limit=limit, seed=seed, questions=len(chosen))
    store = folder if isinstance(folder, ResultsFolder) or folder is None else ResultsFolder(folder)
    examples = store.begin(settings, _session(store, model, batch_size)) if store else []
    source, done = _Source(task, chosen, blind, seed), {example.index for example in examples}
    share = store.rank.share(chosen) if store else chosen
    waiting = [index for index in share if index not in done]
    attempts, unseen = Attempts(task, model, bool(examples)), list[Sample]()
    for start in range(0, len(waiting), batch_size):
        if progress:
            progress(len(share) - len(waiting) + start, len(share))
        asked = source.read(waiting[start : start + batch_size])
        prompts = [prompt for _, prompt in asked]
        shown = task.shots.before(prompts) if task.shots else prompts
        batch = [_example(*each) for each in zip(asked, shown, *attempts.answer(shown), strict=True)]
        unseen += prompts
        settled = attempts.settle(batch) if start + batch_size < len(waiting) else attempts.end(batch)
        if store and settled:
            store.append(settled, _new_pictures(store, unseen))
            unseen.clear()
        examples += settled
    if progress:
        progress(len(share), len(share))
    if store is None:
        return score(settings, examples, source.rejected)
    store.reject(source.rejected)
    result = store.result()
    if not result.missing:
        store.finish(result)
    return result


def _model_named(name: str, batch_size: int) -> Model:
    from lorgnette.eval.models import open_model

    return open_model(name, batch_size=batch_size)


def _task_named(name: str, model: Model) -> Task:
    from lorgnette.eval.benchmark import Asking
    from lorgnette.eval.own_rows import is_path, names_of, task_of_path
    from lorgnette.eval.tasks import task_named

    return task_of_path(name, names_of([name])[name], Asking()) if is_path(name) else task_named(name, encoder=model)


def _session(store: ResultsFolder, model: Model, batch_size: int) -> dict[str, Any]:
    """Return the facts of this process to store: code, device, versions."""
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    where = {"python": platform.python_version(), "torch": importlib.metadata.version("torch")}
    rank = {"rank": store.rank.number, "ranks": store.rank.of}
    return {"began": began, **code(), **where, **model.environment(), "batch_size": batch_size, **rank}


def settings_of(task: Task, model: Model, **conditions: Any) -> dict[str, Any]:
    """All that decides the answers, as stored beside them. `weights` is there where the model knows its files."""
    metric_named(task.metric)  # one that is not there ends the evaluation before the first question
    fields = ("name", "version", "split", "metric", "prompt", "form", "variant", "answer_by", "max_tokens")
    described = {"task" if field == "name" else field: getattr(task, field) for field in fields}
    described |= {"stop": list(task.stop), "size": len(task.samples), "model": model.identity}
    described |= {"shots": task.shots.described() if task.shots else None}
    described |= {"weights": model.weights} if model.weights else {}
    code = {**task.plugins, **plugins.record(("metrics", task.metric))}
    described |= {"plugins": code} if code else {}
    return {**described, **conditions}


def _choose(task: Task, limit: int | None, seed: int) -> list[int]:
    """Indices to ask, in order. A smaller limit chooses a subset of what a larger one does, in whole groups."""
    groups = task.groups or range(len(task.samples))
    members: dict[Any, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = list(members)
    random.Random(seed).shuffle(order)
    return sorted(index for group in order[:limit] for index in members[group])


class _Source:
    """The chosen samples of a task, with other pictures where it is asked blind, and those that cannot be read."""

    def __init__(self, task: Task, chosen: Sequence[int], blind: bool, seed: int) -> None:
        self.name, self.chosen = task.name, chosen
        self.rejected: dict[int, RejectedRow] = {}
        self._opened: set[str] = set()
        self._take: Callable[[int], Sample] = task.samples.__getitem__
        if blind:
            readable = [index for index, _ in self.read(chosen)]
            place = {index: number for number, index in enumerate(readable)}
            swapped = blinded(_Some(task.samples, readable), seed)
            self._take = lambda index: swapped(place[index])

    def read(self, indices: Sequence[int]) -> list[IndexedPrompt]:
        """The prompts of some samples; those that cannot be read are left out, and named in `rejected`."""
        asked = []
        for index in indices:
            if index in self.rejected:
                continue
            try:
                prompt = prompt_of(self._take(index))
                self._open(prompt)
                asked.append((index, prompt))
            except Refused as refused:
                self.rejected[index] = RejectedRow(f"{self.name} {index}", "", str(refused))
            except ImageError as error:
                self.rejected[index] = RejectedRow(prompt.name, "", str(error))
        return asked

    def _open(self, prompt: Sample) -> None:
        """Each picture once. Raises: ImageError for one that cannot be decoded."""
        for image in prompt.images:
            digest = image_digest(image.source)
            if digest not in self._opened:
                check_image(image.source)
                self._opened.add(digest)


class _Some(Sequence[Sample]):
    """Some samples of many, read when they are asked for."""

    def __init__(self, samples: Sequence[Sample], indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Sample:  # type: ignore[override]
        return self.samples[self.indices[number]]


def _example(asked: IndexedPrompt, shown: Sample, answer: Answer, rendered: str) -> Example:
    index, prompt = asked
    return Example(
        index=index,
        name=prompt.name,
        kind=str(prompt.meta.get("kind", "")),
        question=transcript(prompt),
        answer=str(answer),
        truth=truth_of(prompt),
        images=tuple(image_digest(image.source) for image in prompt.images),
        prompt=transcript(shown, image_digest),
        rendered=rendered,
        id=str(prompt.meta.get("id", "")),
        by=answer.by,
        declined=answer.declined,
    )


def _new_pictures(store: ResultsFolder, prompts: Sequence[Sample]) -> dict[str, bytes]:
    """Small copies of the pictures that the folder does not hold yet."""
    shown = {image_digest(image.source): image.source for prompt in prompts for image in prompt.images}
    return {digest: thumbnail(source) for digest, source in shown.items() if not store.picture(digest).exists()}
