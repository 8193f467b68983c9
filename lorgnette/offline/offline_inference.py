"""Offline inference: every prompt of a folder or of files of rows answered by the engine, into one file.

The job resumes: what is answered stays answered, whenever it is stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lorgnette.errors import LorgnetteError
from lorgnette.infer.decoding_pool import DecodingPool
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Event, Request, SamplingParams
from lorgnette.offline.answer_file import AnswerFile, AnswerRow
from lorgnette.offline.prompt_rows import PromptRow, PromptRows

AHEAD = 2
"""Requests in the engine, over those that it answers side by side."""


@dataclass(frozen=True)
class JobReport:
    """Counts of a job that has ended."""

    answered: int
    """By this run of it."""
    before: int
    """By earlier runs."""
    failed: tuple[AnswerRow, ...]
    """Prompts without an answer, each with its error; the next run of the job tries them again."""
    tokens: int
    """Tokens that this run generated."""


def run_job(
    engine: Engine,
    rows: PromptRows,
    file: AnswerFile,
    params: SamplingParams,
    *,
    split: bool | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> JobReport:
    """Answer the rows that have no answer yet, and write the file in the order of the rows.

    split: images in five crops or one, over the processor's setting. on_done: told how many rows are done, of how many.
    A row that cannot be asked or answered gets an error in its place, and stops nothing.
    """
    before = done = sum(name in file.answers for name in rows.ids)
    waiting = (row for row in rows.read() if row.id not in file.answers)
    failed, tokens = list[AnswerRow](), 0
    report = on_done or (lambda done, total: None)
    report(done, len(rows.ids))
    for answer in answer_rows(engine, waiting, params, file.settings, split):
        file.add(answer)
        done, tokens = done + 1, tokens + (answer["tokens"] or 0)
        failed += [answer] if answer["error"] is not None else []
        report(done, len(rows.ids))
    file.finish(rows.ids, failed)
    return JobReport(done - before - len(failed), before, tuple(failed), tokens)


def answer_rows(
    engine: Engine, rows: Iterable[PromptRow], params: SamplingParams, settings: str, split: bool | None = None
) -> Iterator[AnswerRow]:
    """The answer to each row, in the order in which they end."""
    with contextlib.closing(DecodingPool(engine)) as pool:
        yield from _answers(engine, pool, rows, params, settings, split)


def _answers(
    engine: Engine,
    pool: DecodingPool,
    rows: Iterable[PromptRow],
    params: SamplingParams,
    settings: str,
    split: bool | None,
) -> Iterator[AnswerRow]:
    left = iter(rows)
    places = min(engine.config.max_running * AHEAD, engine.config.max_running + engine.config.max_waiting)
    has_more = True
    while has_more or not engine.is_idle:
        while has_more and len(engine.requests) < places:
            row = next(left, None)
            has_more = row is not None
            if row is not None and (refusal := _added(engine, row, params, split)):
                yield _answer(row.id, settings, error=refusal)
        pool.exchange()
        if engine.decoded.is_awaited:
            pool.wait()
            continue
        for event in engine.step():
            if event.error is not None or event.generation is not None:
                yield _ended(event, settings)


def _added(engine: Engine, row: PromptRow, params: SamplingParams, split: bool | None) -> str:
    """Give a row to the engine; the reason if it cannot be asked."""
    if row.sample is None:
        return row.refusal
    try:
        engine.add(Request(row.id, row.sample, params, split=split))
    except LorgnetteError as error:
        return str(error)
    return ""


def _ended(event: Event, settings: str) -> AnswerRow:
    if event.generation is None:
        return _answer(event.request, settings, error=str(event.error))
    done = event.generation
    counts = {"prompt_tokens": done.prompt_tokens, "tokens": len(done.tokens)}
    return _answer(event.request, settings, text=done.text, finish=done.finish, **counts)


def _answer(name: str, settings: str, **values: str | int | None) -> AnswerRow:
    empty = dict.fromkeys(("text", "finish", "prompt_tokens", "tokens", "error"))
    return {"id": name, **empty, **values, "settings": settings}
