"""A file of one's own as a task: `lorgnette eval --tasks mine.jsonl --metric anls`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lorgnette.data.detect_kind import ROW_ENDINGS, detect_kind
from lorgnette.data.inspect import source_config
from lorgnette.data.prepare.open_rows import OpenRows, open_rows
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.reading.compressed import expanded_name
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.row_questions import LONGEST_ANSWER, RowQuestions, choose_metric, questions_in, survey, task_of_rows
from lorgnette.eval.task import Task
from lorgnette.untrusted import quoted

CHARACTERS_PER_TOKEN = 2
"""Fewest characters of a token, by which the longest reference bounds an answer: a server's tokenizer is not known."""


def is_path(name: str) -> bool:
    """Return whether the name of a task is a place of data: an existing one, or one that ends as files of rows do."""
    return os.path.exists(name) or expanded_name(name).endswith((*ROW_ENDINGS, ".pdf"))


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each path, for tables and folders: that of the file, or all of it where two are alike."""
    stems = [Path(path.rstrip("/")).name.partition(".")[0] for path in paths]
    long = [path.strip("./").replace("/", "-") for path in paths]
    return {
        path: stem if stems.count(stem) == 1 and stem else whole
        for path, stem, whole in zip(paths, stems, long, strict=True)
    }


def task_of_path(path: str, name: str, asking: Asking, kind: str | None = None, metric: str | None = None) -> Task:
    """The questions of a file, folder or glob of data as a task.

    kind, metric: chosen by looking where they are not given. Each answer that training would teach is a question; a
    row that cannot be read is named in the results.
    Raises: SettingsError for settings that rows of one's own do not have; DataError if there is nothing to ask.
    """
    if asking.shots or asking.choices != "generation" or asking.form:
        raise SettingsError(f"{path}: rows of your own have no shots, options or prompt forms; leave these options out")
    rows = open_rows(source_config(kind or detect_kind(path), path, []))
    samples = _questions(rows)
    found = survey(samples)
    if not found.answers:
        why = f" ({quoted(found.refusal)})" if found.refusal else ""
        raise DataError(f"{path}: no row of kind {rows.config.kind} has a question and its answer{why}")
    chosen = metric or choose_metric([rows.config.kind], found.answers).metric
    longest = max(map(len, found.answers)) // CHARACTERS_PER_TOKEN + 8
    return task_of_rows(name, samples, found, chosen, asking.max_tokens or min(LONGEST_ANSWER, max(16, longest)))


def _questions(rows: OpenRows) -> RowQuestions:
    """The questions of all rows, and a place for each row that cannot be read, which raises Refused."""
    places = list[tuple[int, int]]()
    for number in range(len(rows)):
        try:
            places += [(number, place) for place in questions_in(rows.record(number))]
        except Refused:
            places.append((number, 0))

    def read(number: int) -> Record:
        if number < len(rows):
            return rows.record(number)
        refused = rows.refused[number - len(rows)]
        raise Refused(refused.reason, f"{refused.name}: {refused.detail}")

    return RowQuestions(read, [*places, *((len(rows) + number, 0) for number in range(len(rows.refused)))])
