"""Instructions as The Cauldron has them: `images`, and `texts` of {user, assistant, source} that are all about them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lorgnette.data.config import InstructConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.download import in_order
from lorgnette.data.sources.links import holds_links
from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.shards import Shards, list_shards
from lorgnette.data.sources.values import read_image, read_list, stored
from lorgnette.errors import DataError
from lorgnette.sample import Image, Segment, Text, Turn

COLUMNS = ("images", "texts")


def read(row: Mapping[str, Any], config: InstructConfig, name: str) -> Record:
    """A conversation of questions and answers about all images of the row; only the answers are learned.

    Each question with its answer is a unit, and the images are the head: every piece shows them. Rows without images
    are conversations in text. `most_turns` is applied where pieces are cut (`sources.table.most_units`).

    Raises: Refused if an image cannot be had, or a question or answer is missing.
    """
    images = tuple(_images(row))
    texts = read_list(row, "texts")
    if not texts:
        raise Refused("no text", "'texts' holds no question")
    units = tuple(_unit(one, number, bool(images)) for number, one in enumerate(texts))
    tags = sorted({str(one["source"]) for one in texts if one.get("source")})
    meta = {"name": name, "source": config.title, **({"tags": tags} if tags else {})}
    return Record(units, images, shuffle=config.shuffle_turns, meta=meta)


def _images(row: Mapping[str, Any]) -> Iterator[Image]:
    for place, value in enumerate(read_list(row, "images", needed=False)):
        yield read_image(value, row, f"image {place}")


def _sources(row: Mapping[str, Any]) -> list[Any]:
    return [image.source for image in _images(row)]


def _unit(one: Any, number: int, has_images: bool) -> tuple[Segment, ...]:
    if not isinstance(one, Mapping):
        raise Refused("wrong type", f"text {number} is a {type(one).__name__}, not {{user, assistant}}")
    user, assistant = (one.get(role) for role in ("user", "assistant"))
    if not isinstance(assistant, str) or not assistant.strip():
        raise Refused("no answer", f"text {number} has no `assistant`, or a blank one")
    if user is None and has_images:
        user = ""
    if not isinstance(user, str) or not (user.strip() or has_images):
        raise Refused("no question", f"text {number} has no `user`, or a blank one and no image")
    return Turn("user"), Text(user), Turn("assistant"), Text(assistant, learn=True)


def must_convert(config: InstructConfig) -> bool:
    """Whether images are links, or rows are to be merged and some file shows the same images in two of them.

    To find out, the files are read once, until the first such pair. Where rows are known to be merged, as in The
    Cauldron, `merge: false` saves that.
    """
    if holds_links(config.path, ("images",)):
        return True
    shards = Shards(list_shards(config.path), COLUMNS)
    return config.merge and any(_repeats(shards, shard) for shard in range(len(shards.paths)))


def _repeats(shards: Shards, shard: int) -> bool:
    seen = set()
    try:
        for _, row in _places(shards, shard):
            key = _key(row)
            if key is not None and key in seen:
                return True
            seen.add(key)
    except DataError:
        return False  # a damaged file; whoever reads it says so
    return False


def convert(config: InstructConfig) -> Iterator[dict[str, Any] | Refusal]:
    """All rows, with those of a file that show the same images, in the same order, merged into the first of them.

    Images are the same if the SHA-256 of their bytes is, or their link. Questions keep the order of the rows; a
    question that is repeated with its answer stands once. Each file is read twice, so that only its texts and hashes
    are in memory. A row that was merged into another is no row of its own, and said in a Refusal with `parts`.
    """
    shards = Shards(list_shards(config.path), COLUMNS)
    for shard, path in enumerate(shards.paths):
        try:
            yield from in_order(lambda item: _converted(*item), _merging(shards, shard, config.merge))
        except DataError as error:
            yield Refusal(path, "", "unreadable file", str(error))


def _converted(path: str, number: int, row: dict[str, Any] | Refusal, later: list[Any]) -> dict[str, Any] | Refusal:
    if isinstance(row, Refusal):
        return row
    try:
        return _merged(row, later)
    except Refused as refused:
        return Refusal(path, f"row {number}", refused.reason, refused.detail)


def _merging(shards: Shards, shard: int, merge: bool) -> Iterator[tuple[str, int, dict[str, Any] | Refusal, list[Any]]]:
    """Each row of a shard with the texts of later rows that show the same."""
    path = shards.paths[shard]
    later: dict[bytes, list[Any]] = defaultdict(list)
    first: dict[bytes, int] = {}
    for number, row in _places(shards, shard) if merge else ():
        key = _key(row)
        if key is not None and first.setdefault(key, number) != number:
            later[key] += row["texts"]
    for number, row in _places(shards, shard):
        key = _key(row) if merge else None
        if key is not None and first[key] != number:
            yield path, number, Refusal(path, f"row {number}", "merged", f"into row {first[key]}", 1), []
        else:
            yield path, number, row, later.get(key, []) if key is not None else []


def _places(shards: Shards, shard: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a shard with their numbers in it."""
    groups = range(len(shards.groups(shard)))
    return enumerate((row for group in groups for row in shards.rows(shard, group)), 1)


def _key(row: Mapping[str, Any]) -> bytes | None:
    """What equal image sets have in common; None for a row without images, or one that cannot be read."""
    try:
        images = [one if isinstance(one, str) else stored(Image(one), "")["bytes"] for one in _sources(row)]
        _texts(row)
    except Refused:
        return None  # such a row is not merged; reading it says what is wrong
    parts = [hashlib.sha256(one.encode() if isinstance(one, str) else one).digest() for one in images]
    return hashlib.sha256(b"".join(parts)).digest() if parts else None


def _texts(row: Mapping[str, Any]) -> list[dict[str, str | None]]:
    texts = read_list(row, "texts")
    for number, one in enumerate(texts):
        _unit(one, number, has_images=True)
    return [{key: one.get(key) for key in ("user", "assistant", "source")} for one in texts]


def _merged(row: Mapping[str, Any], later: list[Any]) -> dict[str, Any]:
    images = [stored(image, f"image {place}") for place, image in enumerate(_images(row))]
    texts: dict[tuple[Any, Any], dict[str, Any]] = {}
    for one in [*_texts(row), *later]:
        texts.setdefault((one.get("user"), one.get("assistant")), one)
    return {"images": images, "texts": list(texts.values())}
