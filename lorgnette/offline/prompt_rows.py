"""Prompts of a batch job: the images of a folder under one prompt, or the rows of files, in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.conversations import conversation
from lorgnette.data.sources.reading.columns import IMAGE_SUFFIXES, images_in, is_absent, is_blank
from lorgnette.data.sources.reading.message_forms import LISTS
from lorgnette.data.sources.reading.row_files import placed, row_files, rows_of
from lorgnette.data.sources.reading.shards import list_files
from lorgnette.data.sources.reading.values import read_image
from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment, Text, Turn
from lorgnette.untrusted import quoted

PROMPT_COLUMNS = ("prompt", "question", "query", "instruction")
"""Columns of a row's prompt, in the order in which they are looked at."""
ID_COLUMNS = ("id", "question_id")
"""Columns that name a row; a row without one is named by its file and place."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt to be answered, or the reason why it cannot be asked."""

    id: str
    """Names the row among those of its job, from one run of the job to the next."""
    sample: Sample | None
    refusal: str = ""


@dataclass(frozen=True)
class PromptRows:
    """The prompts of a job. They are read one by one, so that files of any size are."""

    ids: tuple[str, ...]
    """Of all rows, in order."""
    read: Callable[[], Iterator[PromptRow]]


def image_prompts(folder: str, prompt: str) -> PromptRows:
    """A prompt about each image of a folder, searched to any depth; ids are paths from the folder.

    folder: a folder, an image, or a glob. Raises: DataError if it holds no image.
    """
    paths = list_files(folder, IMAGE_SUFFIXES)
    base = folder if os.path.isdir(folder) else os.path.commonpath([os.path.dirname(path) for path in paths])
    places = {Path(os.path.relpath(path, base or ".")).as_posix(): Path(path) for path in paths}

    def read() -> Iterator[PromptRow]:
        return (PromptRow(name, _asked([Image(path)], prompt, name)) for name, path in places.items())

    return PromptRows(tuple(places), read)


def row_prompts(path: str, prompt: str | None = None) -> PromptRows:
    """The prompts of all rows of files of rows (JSON, JSONL, CSV, parquet, Arrow, webdataset archives).

    A row is a conversation, of which what stands after the last user's turn is left out, or has images in a column
    `images` or `image` and its prompt in one of `PROMPT_COLUMNS`. prompt: for rows that have none of their own.
    Raises: DataError if there are no rows, or two have the same id.
    """
    files = row_files(path)

    def read() -> Iterator[PromptRow]:
        return (_row(file, place, row, prompt) for file in files for place, row in rows_of(file))

    ids = dict[str, None]()
    for file in files:
        for place, row in rows_of(file):
            name = _id(file, place, row)
            if name in ids:
                raise DataError(f"{path}: two rows have the id {quoted(name)!r}; give each an id of its own, or none")
            ids[name] = None
    if not ids:
        raise DataError(f"{path}: holds no rows; give a file with a prompt in each row")
    return PromptRows(tuple(ids), read)


def _id(file: str, place: str, row: dict[str, Any] | RejectedRow) -> str:
    given = None
    if not isinstance(row, RejectedRow):
        given = next((row[column] for column in ID_COLUMNS if isinstance(row.get(column), str | int)), None)
    return ", ".join(filter(None, (file, place))) if given is None else str(given)


def _row(file: str, place: str, row: dict[str, Any] | RejectedRow, prompt: str | None) -> PromptRow:
    name, where = _id(file, place, row), ", ".join(filter(None, (file, place)))
    if isinstance(row, RejectedRow):
        return PromptRow(name, None, f"{row.name}: {row.detail}")
    try:
        return PromptRow(name, _sample(placed(row, file), prompt, where))
    except Refused as refused:
        return PromptRow(name, None, f"{where}: {refused.detail}")


def _sample(row: Mapping[str, Any], prompt: str | None, name: str) -> Sample:
    if any(row.get(column) is not None for column in LISTS):
        return _question(row, name)
    own = next((row[column] for column in PROMPT_COLUMNS if not is_absent(row.get(column))), prompt)
    if not isinstance(own, str) or is_blank(own):
        raise Refused("no prompt", f"no text in a column {', '.join(PROMPT_COLUMNS)}; add one, or give --prompt")
    values, _ = images_in(row)
    return _asked([read_image(value, row, f"image {number}") for number, value in enumerate(values)], own, name)


def _question(row: Mapping[str, Any], name: str) -> Sample:
    """The conversation of a row up to its last user's turn."""
    messages, _ = conversation(row)
    while messages and messages[-1].role != "user":
        messages = messages[:-1]
    if not messages:
        raise Refused("no prompt", "the conversation has no message of a user")
    segments: list[Segment] = []
    for message in messages:
        texts = [Text(part) if isinstance(part, str) else part for part in message.parts]
        segments += [Turn(message.role), *(part for part in texts if isinstance(part, Text | Image))]
    return Sample(tuple(segments), {"name": name})


def _asked(images: list[Image], prompt: str, name: str) -> Sample:
    return Sample((Turn("user"), *images, Text(prompt)), {"name": name})
