"""Data that a program holds in memory, written as the rows that a source reads: hashed and resumable as any file.

Rows may be mappings in any form that a kind of source reads, `Sample`s, or what iterates over these (a list, a
generator, a `datasets.Dataset`). Images may have any form that `Image` takes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import PIL.Image

from lorgnette.data.config import SourceConfig
from lorgnette.data.detect_kind import detect_kind, kind_of_row
from lorgnette.data.inspect import source_config
from lorgnette.errors import DataError, SettingsError
from lorgnette.files import new_file
from lorgnette.images import image_source
from lorgnette.sample import Image, Sample, Text, Turn
from lorgnette.untrusted import quoted

FOLDER_NAME = "data"
"""Folder within that of a run: `rows.jsonl`, and `images/` with a file for each picture, named by its hash."""
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def sources_of(data: Any, kind: str | None, folder: Path) -> list[SourceConfig]:
    """Sources of what a program gives as data: a path, a list of paths, or rows, which are written to `folder`.

    kind: of all of it; None to look. Raises: SettingsError or DataError for what is no data, naming the row.
    """
    if isinstance(data, str | Path):
        data = [data]
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise SettingsError(f"data is a {type(data).__name__}; give paths, or rows: a list, a Dataset, an iterable")
    if isinstance(data, list | tuple) and data and all(isinstance(one, str | Path) for one in data):
        paths = [str(one) for one in data]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise SettingsError(f"{quoted(twice)} is given twice; give each file once")
        return [source_config(kind or detect_kind(path), path, []) for path in paths]
    return [write_in_memory(data, kind, folder / FOLDER_NAME)]


def write_in_memory(data: Iterable[Any], kind: str | None, folder: Path) -> SourceConfig:
    """Write rows to `folder/rows.jsonl` and their pictures beside it; the same rows are the same bytes.

    Relative paths in rows start at the working directory, and any path is read: the program that gives rows is trusted.
    Raises: DataError naming the row that cannot be written; SettingsError if its kind is not clear.
    """
    found, digest = kind, hashlib.sha256()
    path = folder / "rows.jsonl"
    with new_file(path) as beside:
        with beside.open("w", encoding="utf-8") as file:
            for number, row in enumerate(data, 1):
                plain = _row(row, f"row {number} of the data", folder)
                found = found or _kind(plain, number)
                line = json.dumps(plain, ensure_ascii=False) + "\n"
                digest.update(line.encode())
                file.write(line)
        if found is None:
            raise DataError("data holds no rows; an iterator that was used up has none left")
        if path.is_file() and hashlib.sha256(path.read_bytes()).digest() == digest.digest():
            os.utime(beside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # what was prepared stays valid
    inside = [f"image_folder={json.dumps(os.getcwd())}", "allow_outside=true"]
    return source_config(found, str(path), inside)


def _kind(row: dict[str, Any], number: int) -> str:
    kind = kind_of_row(row)
    if kind is None:
        columns = quoted(", ".join(row))
        raise SettingsError(f"row {number} of the data has the columns {columns}, which no kind reads; give a kind")
    return kind


def _row(row: Any, where: str, folder: Path) -> dict[str, Any]:
    if isinstance(row, Sample):
        row = _of_sample(row, where)
    if not isinstance(row, Mapping):
        raise DataError(
            f"{where} is a {type(row).__name__}; expected a mapping such as {{'messages': ...}}, or a Sample"
        )
    return {str(name): _plain(value, where, folder) for name, value in row.items()}


def _plain(value: Any, where: str, folder: Path) -> Any:
    """A value as JSON has it: pictures are the paths of their files."""
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return _picture(value["bytes"], where, folder)
        return {str(name): _plain(inner, where, folder) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, where, folder) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    return _picture(value, where, folder)


def _picture(value: Any, where: str, folder: Path) -> str:
    """The absolute path of a picture's file, which is written unless it is there."""
    source = image_source(value, where)
    if isinstance(source, PIL.Image.Image):
        buffer = io.BytesIO()
        (source if source.mode in _PNG_MODES else source.convert("RGB")).save(buffer, "PNG")
        source = buffer.getvalue()
    if not isinstance(source, bytes):
        return str(source)
    path = folder / "images" / hashlib.sha256(source).hexdigest()[:16]
    if not path.is_file():
        with new_file(path) as beside:
            beside.write_bytes(source)
    return os.path.abspath(path)


def _of_sample(sample: Sample, where: str) -> dict[str, Any]:
    """A conversation as messages, and a picture with its text as a caption. Raises: DataError for another document."""
    if sample.is_chat:
        return {"messages": list(_messages(sample))}
    caption = "".join(one.text for one in sample.segments if isinstance(one, Text) and one.supervised)
    if len(sample.images) == 1 and caption and not any(isinstance(one, Text) for one in sample.segments[:1]):
        return {"image": sample.images[0].source, "text": caption}
    raise DataError(
        f"{where}, {sample.name}: is neither a conversation nor one picture with its text; write it as a file"
    )


def _messages(sample: Sample) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {}
    for segment in sample.segments:
        if isinstance(segment, Turn):
            if message:
                yield message
            message = {"role": segment.role, "content": []}
            if segment.role == "assistant":
                message["weight"] = 0
        elif isinstance(segment, Image):
            message["content"].append({"type": "image", "image": segment.source})
        else:
            message["content"].append({"type": "text", "text": segment.text})
            if segment.supervised and "weight" in message:
                message["weight"] = 1
    yield message
