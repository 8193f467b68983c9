"""Detection of the kind of a source from its files: their endings, and the columns of the first rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS, IMAGE_SUFFIXES, as_list, is_absent
from lorgnette.data.sources.reading.compressed import expanded_name
from lorgnette.data.sources.reading.message_forms import ANSWERED, LISTS
from lorgnette.data.sources.reading.row_files import NOT_ROWS, rows_of
from lorgnette.data.sources.reading.shards import FOLDER, list_files
from lorgnette.errors import DataError, SettingsError
from lorgnette.untrusted import quoted

ROW_ENDINGS = (".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".tar")
FIRST_ROWS = 16
"""Rows of the first file that are looked at."""
_CAPTIONS = ("caption", "alt", "text", "txt")
_KINDS = "chat, instruct, pairs, documents, interleaved or webpages"


def detect_kind(path: str) -> str:
    """The kind of a file, folder, glob or URL of data.

    Raises: DataError if there is no such place; SettingsError saying what was seen, if that is of no kind or of two.
    """
    files = [name for name in list_files(path, ("",)) if name.rpartition("/")[2] not in NOT_ROWS]
    names = [expanded_name(name) for name in files]
    if any(name.endswith(".pdf") for name in names):
        return _alone(path, "documents", "pages (.pdf)", names)
    if any(name.endswith((".html", ".htm", ".warc")) for name in names):
        return _alone(path, "webpages", "pages (.html or .warc)", names)
    tables = [file for file, name in zip(files, names, strict=True) if name.endswith(ROW_ENDINGS)]
    has_images = any(name.endswith(IMAGE_SUFFIXES) for name in names)
    if not tables and has_images and any(name.endswith(".txt") for name in names):
        return "pairs"
    if not tables:
        seen = Counter(
            f".{name.rpartition('.')[2]}" if "." in name.rpartition("/")[2] else "no ending" for name in names
        )
        said = ", ".join(f"{count:,} of {ending}" for ending, count in seen.most_common(4))
        raise _unclear(path, f"its files are {quoted(said)}, none of which hold rows")
    return _of_rows(path, tables[0])


def _alone(path: str, kind: str, what: str, names: list[str]) -> str:
    """The kind, unless files of rows lie beside those of it."""
    rows = next((name for name in names if name.endswith(ROW_ENDINGS)), None)
    if rows is not None:
        raise _unclear(path, f"it holds {what} and rows ({quoted(rows.rpartition('/')[2])})")
    return kind


def _of_rows(path: str, file: str) -> str:
    first = [row for _, row in islice(rows_of(file), FIRST_ROWS)]
    rows = [row for row in first if isinstance(row, dict)]
    if not first:
        raise DataError(f"{quoted(file)}: is empty; give a file with rows")
    if not rows:
        refused = [one for one in first if isinstance(one, RejectedRow)]
        said = f" ({refused[0].place}: {refused[0].reason}: {refused[0].detail})" if refused else ""
        raise _unclear(path, f"none of the first {FIRST_ROWS} rows of {quoted(file)} can be read{said}")
    kinds = Counter(kind for row in rows if (kind := kind_of_row(row)) is not None)
    columns = ", ".join(dict.fromkeys(str(name) for row in rows for name in row if name != FOLDER))
    if not kinds:
        raise _unclear(path, f"the columns of {quoted(file)} are {quoted(columns)}")
    (kind, _), *others = kinds.most_common()
    if others:
        raise _unclear(path, f"rows of {quoted(file)} are of kind {kind} and of kind {others[0][0]}")
    return kind


def kind_of_row(row: Mapping[str, Any]) -> str | None:
    """The kind whose columns a row has; None if no kind reads it."""
    there = {name for name, value in row.items() if not is_absent(value)}
    if there & set(LISTS) or any(
        question in there and there & {answer, "chosen" if question == "prompt" else answer}
        for question, _, answer in ANSWERED
    ):
        return "chat"
    if {"drawings", "boxes"} <= there:
        return "scenes"
    if "texts" in there:
        texts = [one for one in as_list(row["texts"]) or [] if one is not None]
        return "instruct" if texts and all(isinstance(one, Mapping) for one in texts) else "interleaved"
    if there & {*IMAGE_COLUMNS, "file_name"} and there & set(_CAPTIONS):
        return "documents" if {"image", "text", "page"} <= there else "pairs"
    return None


def _unclear(path: str, seen: str) -> SettingsError:
    return SettingsError(f"{quoted(path)}: its kind is not clear: {seen}; say it by --kind: {_KINDS}")
