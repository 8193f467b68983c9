"""Pairs that are no parquet yet: images with a `.txt` beside each or a table of captions, WebDataset, Arrow files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from lorgnette.data.config import PairsConfig
from lorgnette.data.record import Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.pairs import image_of, read_captions
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS, IMAGE_SUFFIXES, is_absent
from lorgnette.data.sources.reading.compressed import expanded_name
from lorgnette.data.sources.reading.download import in_order
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.row_files import ORIGIN, converted_row, row_files, suffixes
from lorgnette.data.sources.reading.shards import FOLDER, folder_of, list_files, read_bytes
from lorgnette.data.sources.reading.unread import Watch
from lorgnette.data.sources.reading.values import read_image, seen, stored
from lorgnette.errors import DataError
from lorgnette.inputs.access import MOST_BYTES
from lorgnette.untrusted import quoted

_TABLES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
"""Forms of a table; in a folder it is called `metadata`, as the hub's image folders have it."""
_WHOLE = (".tar", ".tgz", ".arrow")
"""Forms of rows that hold their images themselves."""
LONGEST_NAME = 4096
"""Characters of a path."""
CAPTIONS = ("text", "txt")
"""Columns of captions where none of the settings' has one: those of the hub's image folders, and of WebDataset."""


def must_convert(config: PairsConfig) -> bool:
    """Return whether the path holds no parquet but tables of images' names, or parquet with links.

    Where it holds some parquet, that alone is the data.
    """
    return not _shards(config) or holds_links(config.path, (config.image_column, *IMAGE_COLUMNS))


def _shards(config: PairsConfig) -> list[str]:
    """Parquet files that are no table in a folder of images."""
    found = list_files(config.path, (*IMAGE_SUFFIXES, *suffixes((*_TABLES, *_WHOLE))))
    return [path for path in found if path.lower().endswith(".parquet") and not _is_table(path)]


def _is_table(path: str) -> bool:
    stem, _, suffix = expanded_name(os.path.basename(path)).rpartition(".")
    return stem == "metadata" and f".{suffix}" in _TABLES


def convert(config: PairsConfig) -> Iterator[RowOrRejected]:
    """Each image with its captions, in the columns that the settings name; the images' bytes as they are.

    A table names an image in `file_name` (or in the column `image_column`), from the table's own folder, and its
    captions in the columns of the settings. An image that no table names takes the text beside it, as the kind of
    caption that is asked for. What has an image or a caption alone is refused.
    """
    watch = Watch(config, ("file_name", config.image_column, *IMAGE_COLUMNS, *_caption_columns(config), *CAPTIONS))
    found = list_files(config.path, (*IMAGE_SUFFIXES, *suffixes((*_TABLES, *_WHOLE)), ".txt"))
    alone = len(found) == 1 and not found[0].lower().endswith((*IMAGE_SUFFIXES, ".txt"))
    whole = _shards(config) or (found if alone else [path for path in found if _is_whole(path)])
    if whole:
        for path in whole:
            yield from _of_table(path, config, set(), watch)
        yield from watch.refusals()
        return
    tables = [path for path in found if _is_table(path)]
    named: set[str] = set()
    for table in tables:
        yield from _of_table(table, config, named, watch)
    yield from _beside(
        [path for path in found if path not in named and path.lower().endswith((*IMAGE_SUFFIXES, ".txt"))], config
    )
    yield from watch.refusals()


def not_read(config: PairsConfig) -> list[str]:
    """Tables and archives of the path that `convert` passes over: all but parquet, or but those that need no table.

    A table in a folder of images is read if it is called `metadata`.
    """
    found = [path for path in row_files(config.path, (*_TABLES, *_WHOLE)) if not path.lower().endswith(IMAGE_SUFFIXES)]
    whole = _shards(config) or [path for path in found if _is_whole(path)]
    read = whole or [path for path in found if _is_table(path)]
    return [path for path in found if path not in read] if len(found) > 1 or found[0] != config.path else []


def _is_whole(path: str) -> bool:
    """Return whether a file holds rows that need no table: parquet, WebDataset, or Arrow but for caches of it."""
    stem = os.path.basename(path)
    is_rows = expanded_name(path).endswith((".parquet", ".tar", ".arrow")) and not _is_table(path)
    return is_rows and not stem.startswith("cache-")


def _caption_columns(config: PairsConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys((config.alt_column, config.synthetic_column)))


def _asked(config: PairsConfig) -> str:
    """The column of the kind of caption that is asked for."""
    return config.synthetic_column if config.captions == "synthetic" else config.alt_column


def _of_table(table: str, config: PairsConfig, named: set[str], watch: Watch) -> Iterator[RowOrRejected]:
    """The rows of a table; the images that it names are added to `named`."""
    folder = folder_of(table)

    def read(item: tuple[str, RowOrRejected]) -> RowOrRejected:
        place, row = item
        return converted_row(table, place, row, lambda found: _captioned(found, folder, config, named))

    return in_order(read, watch.file(table))


def _captioned(row: dict[str, Any], folder: str, config: PairsConfig, named: set[str]) -> dict[str, Any]:
    source = row.get("file_name")
    if is_absent(source):
        try:
            source = image_of(row, config)
        except Refused as refused:
            reason = "images" if refused.reason == "images" else "no image"
            raise Refused(reason, f"'file_name' names no image, and {refused.detail}") from None
    if isinstance(source, str) and len(source) < LONGEST_NAME:  # a table may hold images as base64
        named.add(_join(folder, source))
    columns = _caption_columns(config)
    captions = {column: read_captions(row.get(column), column) for column in columns}
    if not any(captions.values()):
        captions[_asked(config)] = [one for column in CAPTIONS for one in read_captions(row.get(column), column)][:1]
    if not any(captions.values()):
        there = quoted(", ".join(str(key) for key in row if key != FOLDER))
        names = " or ".join(map(repr, columns))
        raise Refused("no caption", f"no text in {names}; the row has {there}: set alt_column")
    where = quoted(repr(source)) if isinstance(source, str) else repr(config.image_column)
    return {config.image_column: stored(read_image(source, {FOLDER: folder}, where), where), **captions}


def _beside(found: list[str], config: PairsConfig) -> Iterator[RowOrRejected]:
    """Images with the text of the file of the same name beside them."""
    texts = {path[:-4]: path for path in found if path.lower().endswith(".txt")}
    column = _asked(config)
    columns: dict[str, Any] = dict.fromkeys(_caption_columns(config))
    for path in found:
        if not path.lower().endswith(IMAGE_SUFFIXES):
            continue
        text = texts.pop(path.rpartition(".")[0], None)
        if text is None:
            yield RejectedRow(path, "", "no caption", "no table names this image, and no .txt file lies beside it")
            continue
        try:
            captions = read_captions(read_bytes(text, MOST_BYTES).decode("utf-8-sig"), text)
            if not captions:
                raise Refused("no caption", f"{text} is blank")
            image = {config.image_column: {"bytes": seen(read_bytes(path, MOST_BYTES), path), "path": None}}
            yield {**image, **columns, column: captions, ORIGIN: {"file": path, "place": ""}}
        except UnicodeDecodeError as error:
            yield RejectedRow(path, "", "no caption", f"{text} is not UTF-8 ({error})")
        except Refused as refused:
            yield RejectedRow(path, "", refused.reason, refused.detail)
        except DataError as error:
            yield RejectedRow(path, "", "unreadable file", str(error))
    for text in texts.values():
        yield RejectedRow(text, "", "no image", "no image of the same name lies beside it")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if "://" in folder else os.path.normpath(os.path.join(folder, name))
