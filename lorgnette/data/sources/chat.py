"""Conversations in JSON, JSONL or parquet: LLaVA and ShareGPT (`conversations`), TRL and OpenAI (`messages`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

from lorgnette.data.config import ChatConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.download import in_order
from lorgnette.data.sources.links import holds_links
from lorgnette.data.sources.refusal import Refusal
from lorgnette.data.sources.rows import rows_of
from lorgnette.data.sources.shards import FOLDER, folder_of, list_files
from lorgnette.data.sources.values import missing, read_image, read_list, stored
from lorgnette.errors import DataError
from lorgnette.sample import Image, Sample, Segment, Text, Turn

COLUMNS = ("images", "image", "messages", "conversations", "system")
SUFFIXES = (".parquet", ".json", ".jsonl")

PLACEHOLDER = "<image>"
"""What stands for an image in the text of LLaVA and ShareGPT rows. In a row without images it is text."""
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
"""`from` of ShareGPT -> role."""


def read(row: Mapping[str, Any], config: ChatConfig, name: str) -> Record:
    """A conversation in its order; only what the assistant says is learned.

    A unit is an exchange: what the user says (with the system's words before) and the answer. Images at the beginning
    of the first question are the head, so that every piece of a long conversation shows them. A last question without
    answer teaches nothing and is left off.

    Raises: Refused for a row without messages or answers, of unknown roles, or where images and their places differ.
    """
    segments = conversation(row)
    exchanges = _exchanges(segments)
    if not any(one.learn and one.text.strip() for unit in exchanges for one in unit if isinstance(one, Text)):
        raise Refused("no answer", "the assistant says nothing in this conversation")
    head: tuple[Segment, ...] = ()
    if Turn("system") not in segments and exchanges[0][0] == Turn("user"):
        turn, *others = exchanges[0]
        head = tuple(takewhile(lambda segment: isinstance(segment, Image), others))
        exchanges[0] = (turn, *others[len(head) :])
    return Record(tuple(exchanges), head, meta={"name": name, "source": config.title})


def _exchanges(segments: Iterable[Segment]) -> list[tuple[Segment, ...]]:
    """Runs of segments that each end with an answer; what stands behind the last answer is left off."""
    exchanges: list[tuple[Segment, ...]] = []
    waiting: list[Segment] = []
    answered = False
    for segment in segments:
        if isinstance(segment, Turn):
            if answered and segment.role != "assistant":
                exchanges.append(tuple(waiting))
                waiting = []
            answered = segment.role == "assistant"
        waiting.append(segment)
    return [*exchanges, tuple(waiting)] if answered else exchanges


def conversation(row: Mapping[str, Any]) -> tuple[Segment, ...]:
    """The segments of a row in any of the forms. Raises: Refused."""
    key = "messages" if row.get("messages") is not None else "conversations"
    if row.get(key) is None:
        raise missing(row, "messages")
    messages = [_message(one, number, row) for number, one in enumerate(read_list(row, key))]
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": [row["system"]]})
    if not messages:
        raise Refused("no text", f"{key!r} is empty")
    try:
        return Sample.from_messages(_placed(messages, _images(row))).segments
    except Refused:
        raise
    except DataError as error:
        raise Refused("layout", str(error)) from None


def _images(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of a column of their own, as parts of a message."""
    given: Any = next((row[key] for key in ("images", "image") if row.get(key) is not None), [])
    if isinstance(given, str | bytes | Mapping):
        given = [given]
    values = read_list({"images": given}, "images")
    return [_shown(read_image(value, row, f"image {place}")) for place, value in enumerate(values)]


def _shown(image: Image) -> dict[str, Any]:
    return {"type": "image", "image": image.source}


def _message(message: Any, number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """One message as a role and a list of parts, whichever form it has."""
    where = f"message {number}"
    if not isinstance(message, Mapping):
        raise Refused("wrong type", f"{where} is a {type(message).__name__}, not a mapping")
    speaker = message.get("role") if message.get("role") is not None else message.get("from")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    if speaker not in SPEAKERS:
        raise Refused("role", f"{where} is by {speaker!r:.40}; known are {', '.join(SPEAKERS)}")
    parts = [content] if isinstance(content, str) else read_list({"content": content}, "content")
    return {
        "role": SPEAKERS[speaker],
        "content": [_part(part, f"{where}, part {n}", row) for n, part in enumerate(parts)],
    }


def _part(part: Any, where: str, row: Mapping[str, Any]) -> Any:
    """A part without its empty keys (parquet has all keys in all parts), and an image found from the row's folder."""
    if not isinstance(part, Mapping):
        return part
    part = {key: value for key, value in part.items() if value is not None}
    if part.get("type") not in ("image", "image_url") or "base64" in part:
        return part
    source = next((part[key] for key in ("image", "image_url", "url", "path") if _given(part.get(key))), None)
    return {"type": "image"} if source is None else _shown(read_image(source, row, where))


def _given(source: Any) -> bool:
    """An image struct whose fields are all null is what parquet has in place of none."""
    return any(value is not None for value in source.values()) if isinstance(source, Mapping) else source is not None


def _placed(messages: list[dict[str, Any]], images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with the images of a column of their own in their places.

    These are the bare `{"type": "image"}` parts; without any, the placeholders in the user's text; without any, the
    beginning of the user's first message.
    """
    if not images:
        return messages
    bare = sum(part == {"type": "image"} for message in messages for part in message["content"])
    if not bare:
        messages = [_with_places(message) for message in messages]
        bare = sum(part == {"type": "image"} for message in messages for part in message["content"])
    if not bare:
        first = next((message for message in messages if message["role"] == "user"), None)
        if first is None:
            raise Refused("images", f"{len(images)} images and no message of a user to show them in")
        return [{**one, "content": [*images, *one["content"]]} if one is first else one for one in messages]
    if bare != len(images):
        raise Refused("images", f"{len(images)} images for {bare} places in the messages")
    left = iter(images)
    return [
        {**one, "content": [next(left) if part == {"type": "image"} else part for part in one["content"]]}
        for one in messages
    ]


def _with_places(message: dict[str, Any]) -> dict[str, Any]:
    """A user's message with a part for each placeholder in its text; the text around it is kept as it is."""
    if message["role"] != "user":
        return message
    parts: list[Any] = []
    for part in message["content"]:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            parts.append(part)
            continue
        before, *others = text.split(PLACEHOLDER)
        parts += [before] if before else []
        for after in others:
            parts += [{"type": "image"}, after] if after else [{"type": "image"}]
    return {**message, "content": parts}


def must_convert(config: ChatConfig) -> bool:
    """Whether some file is not parquet, and must be made so to be read in any order, or images are links."""
    parquet = all(path.lower().endswith(".parquet") for path in list_files(config.path, SUFFIXES))
    return not parquet or holds_links(config.path, ("images", "image", "messages", "conversations"))


def convert(config: ChatConfig) -> Iterator[dict[str, Any] | Refusal]:
    """Every conversation as `images` (their bytes as they are) and `messages` whose image parts stand for them."""
    rows = ((path, place, row) for path in list_files(config.path, SUFFIXES) for place, row in rows_of(path))
    return in_order(lambda item: _converted(*item), rows)


def _converted(path: str, place: str, row: dict[str, Any] | Refusal) -> dict[str, Any] | Refusal:
    if isinstance(row, Refusal):
        return row
    try:
        return _stored({**row, FOLDER: folder_of(path)})
    except Refused as refused:
        return Refusal(path, place, refused.reason, refused.detail)


def _stored(row: Mapping[str, Any]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for segment in conversation(row):
        if isinstance(segment, Turn):
            messages.append({"role": segment.role, "content": []})
        elif isinstance(segment, Image):
            images.append(stored(segment, f"image {len(images)}"))
            messages[-1]["content"].append({"type": "image", "text": None})
        else:
            messages[-1]["content"].append({"type": "text", "text": segment.text})
    return {"images": images, "messages": messages}
