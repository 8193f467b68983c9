"""Pairs that are no parquet yet: images with a `.txt` beside each, or with a table of captions, in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from lorgnette.data.config import PairsConfig
from lorgnette.data.record import Refused
from lorgnette.data.sources.pairs import read_captions
from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.rows import rows_of
from lorgnette.data.sources.shards import FOLDER, folder_of, list_files, read_bytes
from lorgnette.data.sources.values import read_image, stored
from lorgnette.errors import DataError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TABLES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
"""Forms of a table; in a folder it is called `metadata`, as the hub's image folders have it."""


def must_convert(config: PairsConfig) -> bool:
    """Whether the path holds no parquet but tables of images' names: where it holds some, that alone is the data."""
    found = list_files(config.path, (*IMAGES, *TABLES))
    return not any(path.lower().endswith(".parquet") and not _is_table(path) for path in found)


def _is_table(path: str) -> bool:
    stem, _, suffix = os.path.basename(path).lower().rpartition(".")
    return stem == "metadata" and f".{suffix}" in TABLES


def convert(config: PairsConfig) -> Iterator[dict[str, Any] | Refusal]:
    """Each image with its captions, in the columns that the settings name; the images' bytes as they are.

    A table names an image in `file_name` (or in the column `image_column`), from the table's own folder, and its
    captions in the columns of the settings. An image that no table names takes the text beside it, as the kind of
    caption that is asked for. What has an image or a caption alone is refused.
    """
    found = list_files(config.path, (*IMAGES, *TABLES, ".txt"))
    tables = found if len(found) == 1 else [path for path in found if _is_table(path)]
    if len(tables) == 1 and tables[0].lower().endswith((*IMAGES, ".txt")):
        tables = []
    named: set[str] = set()
    for table in tables:
        yield from _of_table(table, config, named)
    yield from _beside([path for path in found if path not in named], config)


def _of_table(table: str, config: PairsConfig, named: set[str]) -> Iterator[dict[str, Any] | Refusal]:
    """The rows of a table; the images that it names are added to `named`."""
    folder = folder_of(table)
    for place, row in rows_of(table):
        if isinstance(row, Refusal):
            yield row
            continue
        source = next((row[key] for key in ("file_name", config.image_column) if row.get(key)), None)
        if isinstance(source, str):
            named.add(_join(folder, source))
        columns = dict.fromkeys((config.alt_column, config.synthetic_column))
        try:
            if source is None:
                raise Refused("no image", f"neither 'file_name' nor {config.image_column!r} names an image")
            captions = {column: read_captions(row.get(column), column) for column in columns}
            if not any(captions.values()):
                there = ", ".join(key for key in row if key != FOLDER)
                names = " or ".join(map(repr, columns))
                raise Refused("no caption", f"no text in {names}; the row has {there}: set alt_column")
            image = read_image(source, {FOLDER: folder}, repr(source))
            yield {config.image_column: stored(image, repr(source)), **captions}
        except Refused as refused:
            yield Refusal(table, place, refused.reason, refused.detail)


def _beside(found: list[str], config: PairsConfig) -> Iterator[dict[str, Any] | Refusal]:
    """Images with the text of the file of the same name beside them."""
    texts = {path[:-4]: path for path in found if path.lower().endswith(".txt")}
    column = config.synthetic_column if config.captions == "synthetic" else config.alt_column
    columns: dict[str, Any] = dict.fromkeys((config.alt_column, config.synthetic_column))
    for path in found:
        if not path.lower().endswith(IMAGES):
            continue
        text = texts.pop(path.rpartition(".")[0], None)
        if text is None:
            yield Refusal(path, "", "no caption", "no table names this image, and no .txt file lies beside it")
            continue
        try:
            captions = read_captions(read_bytes(text).decode("utf-8-sig"), text)
            if not captions:
                raise Refused("no caption", f"{text} is blank")
            yield {config.image_column: {"bytes": read_bytes(path), "path": None}, **columns, column: captions}
        except UnicodeDecodeError as error:
            yield Refusal(path, "", "no caption", f"{text} is not UTF-8 ({error})")
        except Refused as refused:
            yield Refusal(path, "", refused.reason, refused.detail)
        except DataError as error:
            yield Refusal(path, "", "unreadable file", str(error))
    for text in texts.values():
        yield Refusal(text, "", "no image", "no image of the same name lies beside it")


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if "://" in folder else os.path.normpath(os.path.join(folder, name))
