"""Pairs that are no parquet yet: images with a `.txt` beside each, or with a table of captions, in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from lorgnette.data.config import PairsConfig
from lorgnette.data.record import Refused
from lorgnette.data.sources.download import in_order
from lorgnette.data.sources.links import holds_links
from lorgnette.data.sources.pairs import read_captions
from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.rows import rows_of
from lorgnette.data.sources.shards import FOLDER, folder_of, list_files, read_bytes
from lorgnette.data.sources.values import read_image, seen, stored
from lorgnette.errors import DataError
from lorgnette.inputs.access import MOST_BYTES

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TABLES = (".jsonl", ".csv", ".tsv", ".json", ".parquet")
"""Forms of a table; in a folder it is called `metadata`, as the hub's image folders have it."""


def must_convert(config: PairsConfig) -> bool:
    """Whether the path holds no parquet but tables of images' names, or parquet with links.

    Where it holds some parquet, that alone is the data.
    """
    return not _shards(config) or holds_links(config.path, (config.image_column,))


def _shards(config: PairsConfig) -> list[str]:
    """Parquet files that are no table in a folder of images."""
    found = list_files(config.path, (*IMAGES, *TABLES))
    return [path for path in found if path.lower().endswith(".parquet") and not _is_table(path)]


def _is_table(path: str) -> bool:
    stem, _, suffix = os.path.basename(path).lower().rpartition(".")
    return stem == "metadata" and f".{suffix}" in TABLES


def convert(config: PairsConfig) -> Iterator[dict[str, Any] | Refusal]:
    """Each image with its captions, in the columns that the settings name; the images' bytes as they are.

    A table names an image in `file_name` (or in the column `image_column`), from the table's own folder, and its
    captions in the columns of the settings. An image that no table names takes the text beside it, as the kind of
    caption that is asked for. What has an image or a caption alone is refused.
    """
    if shards := _shards(config):
        for shard in shards:
            yield from _of_table(shard, config, set())
        return
    found = list_files(config.path, (*IMAGES, *TABLES, ".txt"))
    tables = found if len(found) == 1 else [path for path in found if _is_table(path)]
    if len(tables) == 1 and tables[0].lower().endswith((*IMAGES, ".txt")):
        tables = []
    named: set[str] = set()
    for table in tables:
        yield from _of_table(table, config, named)
    yield from _beside([path for path in found if path not in named and path not in tables], config)


def _of_table(table: str, config: PairsConfig, named: set[str]) -> Iterator[dict[str, Any] | Refusal]:
    """The rows of a table; the images that it names are added to `named`."""
    folder = folder_of(table)

    def read(item: tuple[str, dict[str, Any] | Refusal]) -> dict[str, Any] | Refusal:
        place, row = item
        if isinstance(row, Refusal):
            return row
        try:
            return _captioned(row, folder, config, named)
        except Refused as refused:
            return Refusal(table, place, refused.reason, refused.detail)

    return in_order(read, rows_of(table))


def _captioned(row: dict[str, Any], folder: str, config: PairsConfig, named: set[str]) -> dict[str, Any]:
    source = next((row[key] for key in ("file_name", config.image_column) if row.get(key)), None)
    if isinstance(source, str):
        named.add(_join(folder, source))
    if source is None:
        raise Refused("no image", f"neither 'file_name' nor {config.image_column!r} names an image")
    columns = dict.fromkeys((config.alt_column, config.synthetic_column))
    captions = {column: read_captions(row.get(column), column) for column in columns}
    if not any(captions.values()):
        there = ", ".join(key for key in row if key != FOLDER)
        names = " or ".join(map(repr, columns))
        raise Refused("no caption", f"no text in {names}; the row has {there}: set alt_column")
    where = repr(source) if isinstance(source, str) else repr(config.image_column)
    return {config.image_column: stored(read_image(source, {FOLDER: folder}, where), where), **captions}


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
            captions = read_captions(read_bytes(text, MOST_BYTES).decode("utf-8-sig"), text)
            if not captions:
                raise Refused("no caption", f"{text} is blank")
            image = {"bytes": seen(read_bytes(path, MOST_BYTES), path), "path": None}
            yield {config.image_column: image, **columns, column: captions}
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
