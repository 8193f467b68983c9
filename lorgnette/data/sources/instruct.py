"""Instructions as The Cauldron has them: `images`, and `texts` of {user, assistant, source} that are all about them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lorgnette.data.config import InstructConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.shards import Shards, list_shards
from lorgnette.data.sources.values import read_image, read_list, stored
from lorgnette.sample import Segment, Text, Turn

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


def _images(row: Mapping[str, Any]) -> Iterator[Any]:
    for place, value in enumerate(read_list(row, "images", needed=False)):
        yield read_image(value, row, f"image {place}")


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
    """Whether rows must be merged first: `merge` is set, and some file shows the same images in two rows.

    To find out, the files are read once, until the first such pair. Where rows are known to be merged, as in The
    Cauldron, `merge: false` saves that.
    """
    if not config.merge:
        return False
    shards = Shards(list_shards(config.path), COLUMNS)
    for shard in range(len(shards.paths)):
        seen = set()
        for _, row in _places(shards, shard):
            key = _key(row)
            if key is not None and key in seen:
                return True
            seen.add(key)
    return False


def convert(config: InstructConfig) -> Iterator[dict[str, Any] | Refusal]:
    """All rows, with those of a file that show the same images, in the same order, merged into the first of them.

    Images are the same if the SHA-256 of their bytes is. Questions keep the order of the rows; a question that is
    repeated with its answer stands once. Each file is read twice, so that only its texts and hashes are in memory.
    """
    shards = Shards(list_shards(config.path), COLUMNS)
    for shard, path in enumerate(shards.paths):
        later: dict[bytes, list[Any]] = defaultdict(list)
        first: dict[bytes, int] = {}
        for number, row in _places(shards, shard):
            key = _key(row)
            if key is not None and first.setdefault(key, number) != number:
                later[key] += row["texts"]
        for number, row in _places(shards, shard):
            key = _key(row)
            if key is not None and first[key] != number:
                continue
            try:
                yield _merged(row, later.get(key, []) if key is not None else [])
            except Refused as refused:
                yield Refusal(path, f"row {number}", refused.reason, refused.detail)


def _places(shards: Shards, shard: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a shard with their numbers in it."""
    groups = range(len(shards.groups(shard)))
    return enumerate((row for group in groups for row in shards.rows(shard, group)), 1)


def _key(row: Mapping[str, Any]) -> bytes | None:
    """What equal image sets have in common; None for a row without images, or one that cannot be read."""
    try:
        images = [stored(image, "") for image in _images(row)]
        _texts(row)
    except Refused:
        return None  # such a row is not merged; reading it says what is wrong
    parts = [hashlib.sha256(image["bytes"] or image["path"].encode()).digest() for image in images]
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
