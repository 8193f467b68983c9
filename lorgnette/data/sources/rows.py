"""Rows of tables in any of the forms that people keep them in: JSON, JSONL, CSV, TSV and parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.shards import Shards, read_bytes
from lorgnette.errors import DataError

LONGEST_FIELD = 2**27
"""Characters of one field of a CSV file."""


def rows_of(path: str) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """Each row of a file with its place in it, or a Refusal where a row, or the file from there on, cannot be read.

    The suffix decides, but a `.json` file with a row on each line is read as JSONL.
    """
    name = path.lower()
    try:
        if name.endswith(".parquet"):
            shards = Shards((path,))
            groups = range(len(shards.groups(0)))
            numbered = enumerate((row for group in groups for row in shards.rows(0, group)), 1)
            yield from ((f"row {number}", row) for number, row in numbered)
        elif name.endswith((".csv", ".tsv")):
            yield from _separated(path, "\t" if name.endswith(".tsv") else ",")
        elif name.endswith(".json"):
            yield from _json(path)
        else:
            yield from _lines(path, read_bytes(path))
    except DataError as error:
        yield "", Refusal(path, "", "unreadable file", str(error))


def _json(path: str) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    content = read_bytes(path)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        yield from _lines(path, content)
        return
    for number, value in enumerate(values if isinstance(values, list) else [values], 1):
        yield _row(path, f"row {number}", value)


def _lines(path: str, content: bytes) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    for number, line in enumerate(io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")), 1):
        if not line.strip():
            continue
        place = f"row {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield place, Refusal(path, place, "not JSON", str(error))
        else:
            yield _row(path, place, value)


def _row(path: str, place: str, value: Any) -> tuple[str, dict[str, Any] | Refusal]:
    if isinstance(value, dict):
        return place, value
    return place, Refusal(path, place, "wrong type", f"the row is a {type(value).__name__}, not a JSON object")


def _separated(path: str, separator: str) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        text = read_bytes(path).decode("utf-8-sig")
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator), 1):
            yield f"row {number}", {key: value for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None
