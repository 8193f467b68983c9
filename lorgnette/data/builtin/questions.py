"""Questions and texts of the built-in corpus for what is no training: an evaluation, a small tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from lorgnette.data.builtin.drawings import drawings_file
from lorgnette.data.builtin.shipped import resolve
from lorgnette.data.sources.scenes import picture_of
from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Text, Turn

ASKED = "builtin:test/scenes/drawing_questions.parquet"
TOLD = ("builtin:train/scenes/scene_questions.parquet", "builtin:train/scenes/scene_positions.parquet")


def questions_for_evaluation(count: int = 400, seed: int = 0) -> list[Sample]:
    """`count` questions about drawings of the test split, one to a scene; `meta` has kind, form, question and answer.

    seed: where the run of questions starts, so that each kind is asked equally often whatever it is.
    Raises: DataError if there are fewer than `count`.
    """
    table = pq.read_table(resolve(ASKED))
    if not 0 < count <= table.num_rows:
        raise DataError(f"{count} questions about drawings: the built-in corpus has {table.num_rows:,}")
    numbers = [(seed * count + number) % table.num_rows for number in range(count)]
    return [_sample(row, number) for number, row in zip(numbers, table.take(numbers).to_pylist(), strict=True)]


def _sample(row: dict[str, Any], number: int) -> Sample:
    [text] = row["texts"]
    question, answer = text["user"], text["assistant"]
    meta = {"name": f"questions/test/0/{number}", "source": "questions", "question": question, "answer": answer}
    segments = (Turn("user"), Image(picture_of(row)), Text(question), Turn("assistant"), Text(answer, supervised=True))
    return Sample(segments, {**meta, "kind": row["kind"], "form": row["form"], "drawings": row["drawings"]})


def tokenizer_texts(count: int = 4000) -> Iterator[str]:
    """Texts to train a small tokenizer on: captions, and questions with their answers, of the train split.

    count: captions, and as many scenes, at most.
    """
    captions = pq.read_table(drawings_file("train"), columns=["caption"]).column("caption")
    yield from islice((str(caption) for caption in captions), count)
    for path in TOLD:
        rows = pq.read_table(resolve(path), columns=["texts"]).slice(0, count // len(TOLD))
        for turn in (turn for row in rows.to_pylist() for turn in row["texts"]):
            yield turn["user"]
            yield turn["assistant"]
