"""Instructions as The Cauldron has them: `images`, and `texts` of {user, assistant, source} that are all about them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lorgnette.data.config import InstructConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS, images_in, is_blank, list_in
from lorgnette.data.sources.reading.download import in_order
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.row_files import converted_row, is_parquet, parquet_or_others, placed, rows_of
from lorgnette.data.sources.reading.unread import Watch
from lorgnette.data.sources.reading.values import read_image, stored
from lorgnette.sample import Image, Segment, Text, Turn

_COLUMNS = (*IMAGE_COLUMNS, "texts")


def read(row: Mapping[str, Any], config: InstructConfig, name: str) -> Record:
    """A conversation of questions and answers about all images of the row; only the answers are learned.

    Each question with its answer is a unit, and the images are the prefix: every piece shows them. Rows without images
    are conversations in text. A blank answer teaches nothing, and its question is left out. `most_turns` is applied
    where pieces are cut (`sources.table.most_units`).

    Raises: Refused if an image cannot be had, a question is missing, or all answers are.
    """
    images, absent = _images(row)
    texts, blank = read_texts(row, bool(images))
    if absent and not images and any("<image>" in one["user"] for one in texts):
        raise Refused("no image", "the row's images are null or empty, and its text has a place for one")
    tags = sorted({one["source"] for one in texts if one["source"]})
    meta = {"name": name, "source": config.title, **({"tags": tags} if tags else {})}
    doubts = [("empty image", f"{absent} of the row's images are null or empty")] if absent else []
    units, left_out = exchanges_of(texts, blank)
    doubts += left_out
    return Record(units, tuple(images), shuffle=config.shuffle_turns, meta=meta, doubts=tuple(doubts))


def exchanges_of(
    texts: list[dict[str, Any]], blank: int
) -> tuple[tuple[tuple[Segment, ...], ...], list[tuple[str, str]]]:
    """A unit for each of the texts that `read_texts` gave, and the doubt about those that it left out, if any."""
    units = tuple(
        (Turn("user"), Text(one["user"]), Turn("assistant"), Text(one["assistant"], supervised=True)) for one in texts
    )
    return units, [("blank answer", f"{blank} of the row's questions have none, and are left out")] if blank else []


def _images(row: Mapping[str, Any]) -> tuple[list[Image], int]:
    """The images of a row, and how many of its values stand for none. Raises: Refused."""
    values, absent = images_in(row)
    return [read_image(value, row, f"image {place}") for place, value in enumerate(values)], absent


def read_texts(row: Mapping[str, Any], has_images: bool) -> tuple[list[dict[str, Any]], int]:
    """Questions with their answers, and how many have no answer and are left out. Raises: Refused."""
    values = list_in(row, "texts")
    if not values:
        raise Refused("no text", "'texts' holds no question")
    texts = [text for number, one in enumerate(values) if (text := _text(one, number, has_images)) is not None]
    if not texts:
        raise Refused("no answer", "no text has an `assistant` that is not blank")
    return texts, len(values) - len(texts)


def _text(one: Any, number: int, has_images: bool) -> dict[str, Any] | None:
    """A question with its answer; None if the answer is blank."""
    if not isinstance(one, Mapping):
        raise Refused("wrong type", f"text {number} is a {type(one).__name__}, not {{user, assistant}}")
    user, assistant, source = (one.get(role) for role in ("user", "assistant", "source"))
    if assistant is not None and not isinstance(assistant, str):
        raise Refused("wrong type", f"the answer of text {number} is a {type(assistant).__name__}, not a string")
    if assistant is None or is_blank(assistant):
        return None
    if user is None and has_images:
        user = ""
    if not isinstance(user, str) or not (has_images or not is_blank(user)):
        raise Refused("no question", f"text {number} has no `user`, or a blank one and no image")
    return {"user": user, "assistant": assistant, "source": source[:200] if isinstance(source, str) else None}


def must_convert(config: InstructConfig) -> bool:
    """Return whether images are links, or rows are to be merged and some file shows the same images in two of them.

    To find out, the files are read once, until the first such pair. Where rows are known to be merged, as in The
    Cauldron, `merge: false` saves that.
    """
    if must_fetch(config):
        return True
    return config.merge and any(_repeats(path, config) for path in parquet_or_others(config.path))


def must_fetch(config: InstructConfig) -> bool:
    """Return whether images are links, or rows are in other files than parquet."""
    parquet = all(map(is_parquet, parquet_or_others(config.path)))
    return not parquet or holds_links(config.path, IMAGE_COLUMNS)


def _repeats(path: str, config: InstructConfig) -> bool:
    seen = set()
    for _, row in rows_of(path, _COLUMNS):
        key = None if isinstance(row, RejectedRow) else _key(placed(row, path))
        if key is not None and key in seen:
            return True
        seen.add(key)
    return False


def convert(config: InstructConfig) -> Iterator[RowOrRejected]:
    """All rows, with those of a file that show the same images, in the same order, merged into the first of them.

    Images are the same if the SHA-256 of their bytes is, or their link. Questions keep the order of the rows; a
    question that is repeated with its answer stands once. Each file is read twice, so that only its texts and hashes
    are in memory. A row that was merged into another is no row of its own, and said in a RejectedRow with `parts`.
    """
    watch = Watch(config, _COLUMNS)
    for path in parquet_or_others(config.path):
        yield from in_order(_converted, _merging(watch, path, config))
    yield from watch.refusals()


Merging = tuple[str, str, RowOrRejected, list[Any]]


def _converted(item: Merging) -> RowOrRejected:
    path, place, row, later = item
    return converted_row(path, place, row, lambda found: _merged(found, later))


def _merging(watch: Watch, path: str, config: InstructConfig) -> Iterator[Merging]:
    """Each row of a file with the texts of later rows that show the same."""
    later: dict[bytes, list[Any]] = defaultdict(list)
    first: dict[bytes, str] = {}
    for place, row in rows_of(path, _COLUMNS) if config.merge else ():
        key = None if isinstance(row, RejectedRow) else _key(placed(row, path))
        if key is not None and not isinstance(row, RejectedRow) and first.setdefault(key, place) != place:
            later[key] += read_texts(row, has_images=True)[0]
    for place, row in watch.file(path):
        if isinstance(row, RejectedRow):
            yield path, place, row, []
            continue
        row = placed(row, path)
        key = _key(row) if config.merge else None
        if key is not None and first.get(key, place) != place:
            yield path, place, RejectedRow(path, place, "merged", f"into {first[key]}", 0, 1), []
        else:
            yield path, place, row, later.get(key, []) if key is not None else []


def _key(row: Mapping[str, Any]) -> bytes | None:
    """Key that equal sets of images share; None for a row without images, or one that cannot be read."""
    try:
        sources = [image.source for image in _images(row)[0]]
        images = [one if isinstance(one, str) else stored(Image(one), "")["bytes"] for one in sources]
        read_texts(row, has_images=True)
    except Refused:
        return None  # such a row is not merged; reading it says what is wrong
    coded = (one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one for one in images)
    parts = [hashlib.sha256(one).digest() for one in coded]
    return hashlib.sha256(b"".join(parts)).digest() if parts else None


def _merged(row: Mapping[str, Any], later: list[Any]) -> dict[str, Any]:
    found, absent = _images(row)
    images = [stored(image, f"image {place}") for place, image in enumerate(found)]
    texts: dict[tuple[Any, Any], dict[str, Any]] = {}
    for one in [*read_texts(row, has_images=bool(found))[0], *later]:
        texts.setdefault((one["user"], one["assistant"]), one)
    return {"images": [*images, *[None] * absent], "texts": list(texts.values())}
