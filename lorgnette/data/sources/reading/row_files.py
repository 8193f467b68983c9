"""Rows of tables in any of the forms that people keep them in: JSON, JSONL, CSV, TSV, parquet, Arrow and WebDataset."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from lorgnette.data.record import Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.reading.compressed import COMPRESSIONS, FAULTS, expanded_name, open_expanded, read_expanded
from lorgnette.data.sources.reading.shards import FOLDER, Shards, folder_of, list_files
from lorgnette.data.sources.reading.webdataset import samples_of
from lorgnette.errors import DataError
from lorgnette.untrusted import MAX_BYTES, parse_json, quoted

LONGEST_FIELD = 2**27
"""Characters of one field of a CSV file."""
PACKED_FORMS = (".json", ".jsonl", ".csv", ".tsv", ".tar")
"""Forms that may be compressed: parquet and Arrow files are within themselves."""
FORMS = (".parquet", ".arrow", ".json", ".jsonl")
"""Forms of rows of any kind."""
WITH_ARCHIVES = (*FORMS, ".tar", ".tgz")
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Metadata files that `datasets` writes beside its data."""
ORIGIN = "__origin__"
"""The key under which a converted row says in which file of the user's, and where in it, it stood."""

Found = tuple[str, RowOrRejected]
"""A row, or why there is none, with its place in its file in words."""


def suffixes(forms: Sequence[str]) -> tuple[str, ...]:
    """The endings of files of these forms, those of compressed ones too."""
    packed = [f"{form}{one}" for form in forms if form in PACKED_FORMS for one in COMPRESSIONS]
    return (*forms, *packed)


def row_files(path: str, forms: Sequence[str] = FORMS) -> tuple[str, ...]:
    """The files of rows that a path means, without those that `datasets` writes about them.

    Raises: DataError if there are none; see `list_files`.
    """
    found = list_files(path, suffixes(forms))
    if len(found) == 1:
        return found
    folders = {folder_of(name) for name in found if name.lower().endswith(".arrow")}
    rows = tuple(name for name in found if not _is_about(name, folders))
    if not rows:
        raise DataError(f"{path}: holds files that say what a dataset is, and none of its rows; check the path")
    return rows


def _is_about(path: str, arrow_folders: set[str]) -> bool:
    """Return whether a file is no rows: a description, or (beside Arrow files) the state or cache of `datasets`."""
    name = os.path.basename(path)
    saved = folder_of(path) in arrow_folders and (name == "state.json" or name.startswith("cache-"))
    return name in NOT_ROWS or saved


def parquet_or_others(path: str, forms: Sequence[str] = FORMS) -> tuple[str, ...]:
    """The parquet files of a path if it holds any, else its files of rows in other forms. Raises: DataError."""
    found = row_files(path, forms)
    parquet = tuple(name for name in found if is_parquet(name))
    return parquet or found


def is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def origin_of(row: Any) -> tuple[str, str] | None:
    """The file and place that a converted row names; None for any other row."""
    origin = row.get(ORIGIN)
    if not isinstance(origin, dict) or not isinstance(origin.get("file"), str) or not origin["file"]:
        return None
    return origin["file"], str(origin.get("place") or "")


def rows_of(path: str, columns: Collection[str] | None = None) -> Iterator[Found]:
    """Each row of a file with its place in it, or a RejectedRow where a row, or the file from there on, cannot be read.

    The suffix decides, but a `.json` file with a row on each line is read as JSONL.
    columns: those of parquet and Arrow files to read, as far as a file has them; None for all.
    """
    name = expanded_name(path)
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, columns)
        elif name.endswith(".arrow"):
            yield from _arrow(path, columns)
        elif name.endswith(".tar"):
            for key, sample in samples_of(path):
                yield key, _refused(path, key, sample) if isinstance(sample, str) else sample
        elif name.endswith((".csv", ".tsv")):
            yield from _separated(path, "\t" if name.endswith(".tsv") else ",")
        elif name.endswith(".json"):
            yield from _json(path)
        else:
            with open_expanded(path) as stream:
                yield from _lines(path, stream)
    except DataError as error:
        yield "", RejectedRow(path, "", "unreadable file", str(error))


def _refused(path: str, place: str, detail: str) -> RejectedRow:
    return RejectedRow(path, place, "unreadable row", detail)


def plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of a batch, each as plain values or as the reason why it has none.

    Reasons are text that is not UTF-8, dates out of range, and fields of one name.
    """
    for number in range(batch.num_rows):
        try:
            (row,) = batch.slice(number, 1).to_pylist(maps_as_pydicts="lossy")
        except (ValueError, TypeError, OverflowError, KeyError, pa.ArrowException) as error:
            yield ValueError(quoted(str(error)))
        else:
            yield row


def _parquet(path: str, columns: Collection[str] | None) -> Iterator[Found]:
    shards = Shards((path,), None if columns is None else tuple(columns))
    number = 0
    for group, rows in enumerate(shards.groups(0)):
        first = number
        try:
            for batch in shards.batches(0, group):
                for row in plain_rows(batch):
                    number += 1
                    yield f"row {number}", row if isinstance(row, dict) else _refused(path, f"row {number}", str(row))
        except DataError as error:
            place = f"rows {number + 1} to {first + rows}"
            yield place, RejectedRow(path, place, "unreadable row group", str(error))
        number = first + rows


def _arrow(path: str, columns: Collection[str] | None) -> Iterator[Found]:
    """The rows of an Arrow file, or of an Arrow stream as `datasets` writes them."""
    number = 0
    with open_arrow(path) as batches:
        for batch in batches:
            names = [name for name in batch.schema.names if columns is None or name in columns]
            if not names:
                there, wanted = quoted(", ".join(batch.schema.names)), ", ".join(columns or ())
                raise DataError(f"{path}: has none of the columns {wanted}; its columns are {there}")
            for row in plain_rows(batch.select(names)):
                number += 1
                yield f"row {number}", row if isinstance(row, dict) else _refused(path, f"row {number}", str(row))


@contextmanager
def open_arrow(path: str) -> Iterator[Iterator[pa.RecordBatch]]:
    """The batches of an Arrow file or stream. Raises: DataError naming it, here or while they are read."""
    with open_expanded(path) as stream:
        is_file = stream.peek(6)[:6] == b"ARROW1"
        # A file has its table of contents at the end; a stream is read as it comes.
        source = pa.BufferReader(stream.read()) if is_file else pa.PythonFile(stream, mode="r")
        yield _checked(path, source, is_file)


def _checked(path: str, source: Any, is_file: bool) -> Iterator[pa.RecordBatch]:
    """Batches whose offsets were looked at: those of a damaged file lead out of its memory."""
    try:
        for batch in _file_batches(source) if is_file else pa.ipc.open_stream(source):
            batch.validate(full=True)
            _ = batch.schema.names  # which fails where they are no text
            yield batch
    except (*FAULTS, KeyError) as error:
        raise DataError(f"{path}: cannot be read as Arrow ({quoted(' '.join(str(error).split()))})") from None


def _file_batches(source: Any) -> Iterator[pa.RecordBatch]:
    reader = pa.ipc.open_file(source)
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _json(path: str) -> Iterator[Found]:
    """A list of rows, one row, or a row on each line; of a list that is damaged, the rows that are whole."""
    content = read_expanded(path)
    if len(content) <= MAX_BYTES:
        try:
            values = parse_json(content, path)
        except DataError:
            values = None
        if values is not None:
            for number, value in enumerate(values if isinstance(values, list) else [values], 1):
                yield _row(path, f"row {number}", value)
            return
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        text = ""
    if text.lstrip().startswith("[") and "\n[" not in text.strip():
        yield from _elements(path, text)
    else:
        yield from _lines(path, io.BytesIO(content))


TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},]', re.DOTALL)
"""Brackets and commas of JSON text; a string matches as a whole, so that its characters are skipped."""
BETWEEN = re.compile(r"[\s,]*")


def _elements(path: str, text: str) -> Iterator[Found]:
    """The values of a JSON list one by one, so that one of them that is damaged leaves the others as they are."""
    at, number = text.index("[") + 1, 0
    while True:
        at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if at >= len(text) or text[at] == "]":
            break
        number += 1
        place, end = f"row {number}", _end_of_value(text, at)
        try:
            value = parse_json(text[at:end], place)
        except DataError as error:
            yield place, RejectedRow(path, place, "not JSON", str(error))
        else:
            yield _row(path, place, value)
        at = max(end, at + 1)
    if at >= len(text):
        yield "", RejectedRow(path, "", "not JSON", f"the list of rows is cut off behind row {number}")


def _end_of_value(text: str, start: int) -> int:
    """Find the end of the value that starts here: behind its last bracket, or before a comma or the end of the list."""
    depth = 0
    for token in TOKEN.finditer(text, start):
        sign = token.group()
        if sign in "[{":
            depth += 1
        elif sign in "]}":
            if depth == 0:
                return token.start()
            depth -= 1
            if depth == 0:
                return token.end()
        elif sign == "," and depth == 0:
            return token.start()
    return len(text)


def _lines(path: str, stream: io.BufferedIOBase) -> Iterator[Found]:
    number = 0
    while line := stream.readline(MAX_BYTES + 1):
        number += 1
        place = f"row {number}"
        if len(line) > MAX_BYTES:
            yield place, RejectedRow(path, place, "not JSON", f"the line is longer than {MAX_BYTES:,} bytes")
            while line and not line.endswith(b"\n"):
                line = stream.readline(2**20)
            continue
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            value = parse_json(line, place)
        except DataError as error:
            yield place, RejectedRow(path, place, "not JSON", str(error))
        else:
            yield _row(path, place, value)


def _row(path: str, place: str, value: Any) -> Found:
    if isinstance(value, dict):
        return place, value
    return place, RejectedRow(path, place, "wrong type", f"the row is a {type(value).__name__}, not a JSON object")


def _separated(path: str, separator: str) -> Iterator[Found]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        text = read_expanded(path).decode("utf-8-sig")
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator), 1):
            yield f"row {number}", {key: value for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({quoted(str(error))})") from None


def converted_row(
    path: str, place: str, row: RowOrRejected, make: Callable[[dict[str, Any]], dict[str, Any]]
) -> RowOrRejected:
    """A row of a file as `make` converts it, with its origin; a RejectedRow as it is, and for what `make` refuses."""
    if isinstance(row, RejectedRow):
        return row
    try:
        return {**make(row), ORIGIN: {"file": path, "place": place}}
    except Refused as refused:
        return RejectedRow(path, place, refused.reason, refused.detail)


def placed(row: dict[str, Any], path: str) -> dict[str, Any]:
    """A row with the folder that its relative paths start from, after `image_folder` of the settings."""
    return {**row, FOLDER: folder_of(path)}
