"""Conversations in JSONL files: one row, one conversation, images by path beside the file (or as base64 or URL)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment


class MessagesSource:
    """Rows of `{"messages": [...]}` (TRL, OpenAI, transformers forms) from a file, or every `*.jsonl` of a folder.

    TRL's split form is read too: `images` in a column of their own, and `{"type": "image"}` parts that point at them in
    order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{path}: no such file or folder; give a JSONL file of conversations, or a folder of them")
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.jsonl"))
        if not files:
            raise DataError(f"{path}: the folder holds no .jsonl file; put rows of {{'messages': [...]}} in one")
        self._rows = [(file, number, offset) for file in files for number, offset in _row_offsets(file)]
        if not self._rows:
            raise DataError(f"{path}: holds no rows; write one JSON object with `messages` on each line")

    @property
    def size(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        file, number, offset = self._rows[index]
        name = f"{file}, row {number}"
        with open(file, "rb") as lines:
            lines.seek(offset)
            line = lines.readline()
        try:
            row = json.loads(line)
            messages = _place_images(row["messages"], row.get("images") or [])
            sample = Sample.from_messages(messages, meta={"name": name, "source": str(self.path)})
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{name}: expected a JSON object with `messages`: {error}") from None
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return Sample(tuple(_beside(segment, file.parent) for segment in sample.segments), sample.meta)


def _row_offsets(file: Path) -> list[tuple[int, int]]:
    """Number and byte offset of each row that is not blank."""
    offsets, offset = [], 0
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                offsets.append((number, offset))
            offset += len(line)
    return offsets


def _place_images(messages: list[dict[str, Any]], images: list[Any]) -> list[dict[str, Any]]:
    """Put the images of a column of their own into the bare `{"type": "image"}` parts, in order."""
    if not images:
        return messages
    left = list(images)
    placed = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [
                {**part, "image": left.pop(0)}
                if left and isinstance(part, dict) and part == {"type": "image"}
                else part
                for part in content
            ]
        placed.append({**message, "content": content})
    if left:
        raise DataError(f"{len(left)} of {len(images)} images have no {{'type': 'image'}} part to stand in")
    return placed


def _beside(segment: Segment, folder: Path) -> Segment:
    """An image given by relative path is looked for beside the file that names it."""
    if isinstance(segment, Image) and isinstance(segment.source, str) and "://" not in segment.source:
        return Image(folder / segment.source)
    return segment
