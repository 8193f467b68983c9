"""Files for the servers that know the answers: VQAv2 and MMMU on EvalAI, DocVQA at the Robust Reading Competition.

VQAv2: a list of `{"question_id": 1, "answer": "two"}`. DocVQA: the same with `questionId`. MMMU: an object from id to
the letter of an option, or to the whole open answer, which the server parses itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.metrics.mmmu import parse_choice
from lorgnette.eval.results.store import Example, ResultsFolder
from lorgnette.eval.tasks import BENCHMARKS
from lorgnette.files import replace_text
from lorgnette.untrusted import parse_json

_MOST_QUESTIONS = 10_000_000
"""Of the largest split; a size beyond it is damage."""
_SHOWN = 5
"""Most questions that a message names."""


def write_submission(folder: str | Path, file: str | Path, *, incomplete: bool = False) -> list[str]:
    """Write a results folder's answers in the form of the benchmark's server.

    incomplete: write it though questions lack an answer, which servers refuse or count as wrong.
    Returns: a sentence for each kind of question that lacks one. Raises: DataError with them, unless `incomplete`;
    DataError for questions without an id or with the same one; SettingsError for a benchmark without such a server;
    DiskError if the file holds something that is no submission.
    """
    store = ResultsFolder(folder)
    settings, examples = store.settings(), sorted(store.examples(), key=lambda example: example.index)
    task = settings["task"]
    if task not in SUBMISSION_FORMATS:
        raise SettingsError(f"{store.path}: {task} has no server; there are files for {', '.join(SUBMISSION_FORMATS)}")
    lacking = list(_lacking(store, settings, {example.index for example in examples}))
    if lacking and not incomplete:
        raise DataError(
            f"{store.path}: {'; '.join(lacking)}. The server wants every question; --incomplete writes the file anyway"
        )
    ids = [example.id for example in examples]
    nameless = [example.name for example, id in zip(examples, ids, strict=True) if not id]
    if nameless:
        raise DataError(f"{store.path}: {nameless[0]} has no id, as in folders of older versions; evaluate again")
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{store.path}: two questions have the id {twice[0]}; the server would take only one")
    replace_text(file, json.dumps(SUBMISSION_FORMATS[task](examples)), _is_submission)
    return lacking


def _is_submission(content: bytes) -> bool:
    """Return whether a file holds what one of the `SUBMISSION_FORMATS` makes."""
    try:
        held = parse_json(content, "")
    except DataError:
        return False
    if isinstance(held, dict):
        return all(isinstance(answer, str) for answer in held.values())
    keys = ({"question_id", "answer"}, {"questionId", "answer"})
    return isinstance(held, list) and all(isinstance(one, dict) and set(one) in keys for one in held)


def _lacking(store: ResultsFolder, settings: dict[str, Any], answered: set[int]) -> Iterator[str]:
    """List what the server will miss, and why."""
    split, there = BENCHMARKS[settings["task"]].splits.get(settings.get("split") or ""), settings.get("size")
    if split is None or type(there) is not int or not 0 <= there <= _MOST_QUESTIONS:
        raise DataError(f"{store.path}: settings.json names no split and its size; evaluate again")
    official = split.size
    if official not in (None, there):
        yield f"the data hold {there:,} of the split's {official:,} questions"
    rejected = store.rejected()
    if rejected:
        yield f"could not be asked: {_some([f'{row.name} ({row.reason})' for row in rejected.values()])}"
    unasked = sorted(set(range(there)) - answered - rejected.keys())
    if unasked:
        yield f"not answered: {_some([f'row {index}' for index in unasked])}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _said(example: Example) -> str:
    """The answer on one line."""
    return " ".join(example.judged.split())


def _records(key: str) -> Callable[[Sequence[Example]], Any]:
    def records(examples: Sequence[Example]) -> list[dict[str, Any]]:
        foreign = [example.id for example in examples if not example.id.isdecimal()]
        if foreign:
            raise DataError(f"question {foreign[0]!r}: the server knows questions by number; is it the public data?")
        return [{key: int(example.id), "answer": _said(example)} for example in examples]

    return records


def _mmmu(examples: Sequence[Example]) -> dict[str, str]:
    def named(example: Example) -> str:
        options = example.truth.options
        return parse_choice(example.judged, options) or "" if options else _said(example)

    return {example.id: named(example) for example in examples}


SUBMISSION_FORMATS: dict[str, Callable[[Sequence[Example]], Any]] = {
    "vqav2": _records("question_id"),
    "docvqa": _records("questionId"),
    "mmmu": _mmmu,
}
"""By benchmark: from examples to what its server reads."""
