"""Rows of a source as questions: an answer that training would teach is what a model is asked for.

`lorgnette tune` asks about the rows that it holds out, and `lorgnette eval --tasks mine.jsonl` about a file of one's
own; both read them here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lorgnette.data.record import Record, Refused
from lorgnette.eval.task import Task, prompt_of
from lorgnette.sample import Image, Sample, Text, Turn

LONGEST_ANSWER = 512
"""Most tokens of an answer that is asked for."""
WHOLE_RECORD = -1
"""Place of the question of a record that is no conversation: its pictures are asked for all of its text."""


def questions_in(record: Record) -> list[int]:
    """Places of the questions in a record: its exchanges, or `WHOLE_RECORD` where pictures have a text after them."""
    if any(isinstance(segment, Turn) for unit in record.units for segment in unit[:1]):
        return [place for place, unit in enumerate(record.units) if unit and _is_answer(unit[-1])]
    segments = [*record.prefix, *(segment for unit in record.units for segment in unit)]
    pictures = len([*itertools.takewhile(lambda segment: isinstance(segment, Image), segments)])
    texts = segments[pictures:] if pictures else segments[len(record.prefix) :]
    caption = (pictures or record.prefix) and texts and all(map(_is_answer, texts))
    return [WHOLE_RECORD] if caption else []


def question_at(record: Record, place: int) -> Sample:
    """A question as a sample that ends with its answer, the exchanges before it as context; see `Task`.

    Exchanges that may change places (`Record.shuffle`) are asked alone.
    """
    if place == WHOLE_RECORD:
        sample = record.piece()
    else:
        sample = record.piece(place if record.shuffle else 0, place + 1)
    answer = "".join(one.text for one in sample.segments[len(_context(sample)) :] if isinstance(one, Text)).strip()
    name = str(record.meta.get("name", "")) + (f", question {place + 1}" if len(record.units) > 1 else "")
    return Sample(sample.segments, {**sample.meta, "name": name, "answers": (answer,)})


def _context(sample: Sample) -> Sequence[object]:
    """Segments before the answer."""
    segments = sample.segments
    while segments and _is_answer(segments[-1]):
        segments = segments[:-1]
    return segments


def _is_answer(segment: object) -> bool:
    return isinstance(segment, Text) and segment.supervised


class RowQuestions(Sequence[Sample]):
    """Questions of records that are read when they are asked for.

    read: gives a record by its number; it may raise Refused. places: number of the record and place of each question.
    """

    def __init__(self, read: Callable[[int], Record], places: Sequence[tuple[int, int]]) -> None:
        self.read, self.places = read, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        record, place = self.places[index]
        return question_at(self.read(record), place)


@dataclass(frozen=True)
class Choice:
    """A metric for answers of some kind, and the reason for it."""

    metric: str
    because: str


def choose_metric(kinds: Iterable[str], answers: Sequence[str]) -> Choice:
    """The metric for reference answers, by the kinds of their sources and by what they look like.

    Each question has one reference, so that VQA accuracy, which counts how many people agree, says nothing.
    """
    kinds, lengths = set(kinds), [len(answer.split()) for answer in answers]
    if kinds and kinds <= {"pairs", "interleaved"}:  # of web documents, those that are a picture and its text
        return Choice("cider_d", "the answers are captions")
    if kinds == {"documents"}:
        return Choice("character_error_rate", "the answers are transcriptions of pages; lower is better")
    if answers and fmean(map(_is_object, answers)) > 0.9:
        return Choice("field_f1", "the answers are JSON objects")
    longest = sorted(lengths)[int(0.9 * (len(lengths) - 1))] if lengths else 0
    distinct = len({answer.casefold() for answer in answers})
    if longest <= 3 and distinct <= max(10, len(answers) // 4):
        return Choice("exact_match", f"the answers are {distinct} different words or phrases")
    if longest <= 12:
        return Choice("anls", "the answers are short texts")
    return Choice("bleu_4", "the answers are long texts")


def _is_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@dataclass(frozen=True)
class Survey:
    """Findings of one pass over questions; those that cannot be read are passed over."""

    answers: tuple[str, ...]
    """The reference answer of each."""
    has_images: bool
    """True if any shows a picture: without one there is nothing to be blind to."""
    is_chat: bool
    digest: str
    """Twelve hex digits of all questions and answers, in their order."""
    refusal: str
    """Why the first of those that cannot be read is none; empty where all can."""


def survey(samples: Sequence[Sample]) -> Survey:
    """Read all questions once."""
    answers, pictures, chats, digest, refusal = list[str](), False, True, hashlib.sha256(), ""
    for number in range(len(samples)):
        try:
            sample = samples[number]
        except Refused as refused:  # the evaluation names it
            refusal = refusal or str(refused)
            continue
        answers.append(str(sample.meta["answers"][0]))
        pictures, chats = pictures or bool(prompt_of(sample).images), chats and sample.is_chat
        digest.update(json.dumps([sample.text, len(sample.images), answers[-1]]).encode())
    return Survey(tuple(answers), pictures, chats, digest.hexdigest()[:12], refusal)


def task_of_rows(name: str, samples: Sequence[Sample], found: Survey, metric: str, max_tokens: int) -> Task:
    """A task of the questions of rows. Answers end at the end of a line unless references have several lines."""
    return Task(
        name=name,
        samples=samples,
        metric=metric,
        split="rows",
        splits=("rows",),
        prompt=f"{{question}} of rows {found.digest}",
        max_tokens=max_tokens,
        stop=() if any("\n" in answer for answer in found.answers) else ("\n",),
        form="chat" if found.is_chat else "base",
    )
