"""Conversations in rows of any form and file: LLaVA, ShareGPT, OpenAI, TRL, transformers, Alpaca, WebDataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from lorgnette.data.config import ChatConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RowOrRejected
from lorgnette.data.sources.reading import message_forms
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS, images_in, is_blank
from lorgnette.data.sources.reading.download import in_order
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.message_forms import Message, Part, Place, messages_of
from lorgnette.data.sources.reading.row_files import WITH_ARCHIVES, converted_row, is_parquet, placed, row_files
from lorgnette.data.sources.reading.shards import Shards
from lorgnette.data.sources.reading.unread import Watch
from lorgnette.data.sources.reading.values import read_image, stored
from lorgnette.errors import DataError
from lorgnette.sample import Image, Segment, Text, Turn

_COLUMNS = (*IMAGE_COLUMNS, *message_forms.COLUMNS)

PART_COLUMNS = ("conversations", "conversation", "prompt", "completion", "chosen")
"""Columns beside `messages` whose messages may hold images within them."""

PLACEHOLDER = "<image>"
"""Image placeholder in the text of LLaVA and ShareGPT rows. In a row without images it is text."""


def read(row: Mapping[str, Any], config: ChatConfig, name: str) -> Record:
    """A conversation in its order; only what the assistant says is learned.

    A unit is an exchange: what the user says (with the system's words before) and the answer. Images at the beginning
    of the first question are the prefix, so that every piece of a long conversation shows them. A blank answer, or one
    that the row does not want learned, is context of the next exchange. A last question without answer teaches nothing
    and is left off.

    Raises: Refused for a row without messages or answers, of unknown roles, or where images and their places differ.
    """
    messages, absent = conversation(row)
    exchanges = _exchanges(_segments(messages))
    if not exchanges:
        said = "the assistant says nothing in this conversation"
        if any(message.role == "assistant" and not is_blank(_text(message)) for message in messages):
            said = "each has weight 0, or train or loss false, so that nothing is learned from this conversation"
        raise Refused("no answer", said)
    prefix: tuple[Segment, ...] = ()
    if all(one.role != "system" for one in messages) and exchanges[0][0] == Turn("user"):
        turn, *others = exchanges[0]
        prefix = tuple(takewhile(lambda segment: isinstance(segment, Image), others))
        exchanges[0] = (turn, *others[len(prefix) :])
    doubts = tuple(_doubts(messages, absent))
    return Record(tuple(exchanges), prefix, meta={"name": name, "source": config.title}, doubts=doubts)


def _text(message: Message) -> str:
    return "".join(part for part in message.parts if isinstance(part, str))


def _segments(messages: Iterable[Message]) -> Iterator[Segment]:
    for message in messages:
        yield Turn(message.role)
        for part in message.parts:
            if isinstance(part, Image):
                yield part
            elif isinstance(part, str):
                yield Text(part, message.supervised)


def _exchanges(segments: Iterable[Segment]) -> list[tuple[Segment, ...]]:
    """Runs of segments that each end with an answer; what stands behind the last answer is left off."""
    exchanges: list[tuple[Segment, ...]] = []
    waiting: list[Segment] = []
    answered = False
    for segment in segments:
        if isinstance(segment, Turn) and answered and segment.role != "assistant":
            exchanges.append(tuple(waiting))
            waiting, answered = [], False
        answered = answered or (isinstance(segment, Text) and segment.supervised)
        waiting.append(segment)
    return [*exchanges, tuple(waiting)] if answered else exchanges


def _doubts(messages: Sequence[Message], absent: int) -> Iterator[tuple[str, str]]:
    """Return warnings about a row that is kept."""
    if absent:
        yield "empty image", f"{absent} of the row's images are null or empty"
    has_image = any(isinstance(part, Image) for message in messages for part in message.parts)
    if not has_image and any(_places_in(message) for message in messages):
        yield f"{PLACEHOLDER} and no image", f"the row has no image, and {PLACEHOLDER} in its text is learned as text"


def conversation(row: Mapping[str, Any]) -> tuple[list[Message], int]:
    """The messages of a row with its images in their places, and how many of its images are null or empty.

    Raises: Refused.
    """
    messages = messages_of(row)
    values, absent = images_in(row)
    images = [read_image(value, row, f"image {number}") for number, value in enumerate(values)]
    return _placed(messages, images, absent), absent


def _placed(messages: list[Message], images: list[Image], absent: int) -> list[Message]:
    """Messages with the images of a column of their own in their places.

    These are the parts that stand for an image; without any, the placeholders in the user's text; without any, the
    beginning of the user's first message. absent: images of the column that are null or empty.
    """
    places = sum(part is Place.IMAGE for message in messages for part in message.parts)
    if not places and (images or absent):
        messages = [_with_places(message) for message in messages]
        places = sum(part is Place.IMAGE for message in messages for part in message.parts)
    if not places:
        return _in_front(messages, images) if images else messages
    if places != len(images) and absent:
        raise Refused("no image", f"{absent} of the row's images are null or empty, and the text has {places} places")
    if places != len(images):
        raise Refused("images", f"{len(images)} images for {places} places in the messages")
    left = iter(images)
    return [
        replace(one, parts=tuple(next(left) if part is Place.IMAGE else part for part in one.parts)) for one in messages
    ]


def _in_front(messages: list[Message], images: list[Image]) -> list[Message]:
    first = next((message for message in messages if message.role == "user"), None)
    if first is None:
        raise Refused("images", f"{len(images)} images and no message of a user to show them in")
    return [replace(one, parts=(*images, *one.parts)) if one is first else one for one in messages]


def _places_in(message: Message) -> bool:
    return message.role == "user" and any(isinstance(part, str) and PLACEHOLDER in part for part in message.parts)


def _with_places(message: Message) -> Message:
    """A user's message with a part for each placeholder in its text; the text around it is kept as it is."""
    if not _places_in(message):
        return message
    parts: list[Part] = []
    for part in message.parts:
        if not isinstance(part, str):
            parts.append(part)
            continue
        before, *others = part.split(PLACEHOLDER)
        parts += [before] if before else []
        for after in others:
            parts += [Place.IMAGE, after] if after else [Place.IMAGE]
    return replace(message, parts=tuple(parts))


def must_convert(config: ChatConfig) -> bool:
    """Return whether a file must be converted to parquet to be read in any order, or images are or may be links."""
    files = row_files(config.path, WITH_ARCHIVES)
    if not all(map(is_parquet, files)):
        return True
    return holds_links(config.path, (*IMAGE_COLUMNS, "messages", "conversations")) or any(
        _may_link(path) for path in files
    )


def _may_link(path: str) -> bool:
    """Return whether messages are JSON text, or parts in other columns name images: both may hold links."""
    try:
        leaves = Shards((path,)).leaves(0)
    except DataError:
        return False  # a damaged file; whoever reads it says so
    return any(
        leaf in message_forms.LISTS
        or (leaf.partition(".")[0] in PART_COLUMNS and leaf.rpartition(".")[2] in message_forms.SOURCES)
        for leaf in leaves
    )


def convert(config: ChatConfig) -> Iterator[RowOrRejected]:
    """Every conversation as `images` (their bytes as they are) and `messages` whose image parts stand for them."""
    watch = Watch(config, _COLUMNS)

    def converted(item: tuple[str, str, RowOrRejected]) -> RowOrRejected:
        path, place, row = item
        return converted_row(path, place, row, lambda found: _stored(placed(found, path)))

    yield from in_order(converted, watch.rows(row_files(config.path, WITH_ARCHIVES)))
    yield from watch.refusals()


def _stored(row: Mapping[str, Any]) -> dict[str, Any]:
    messages, absent = conversation(row)
    images: list[dict[str, Any] | None] = []
    said: list[dict[str, Any]] = []
    for message in messages:
        content = []
        for part in message.parts:
            if isinstance(part, Image):
                images.append(stored(part, f"image {len(images)}"))
            content.append(
                {"type": "image", "text": None} if isinstance(part, Image) else {"type": "text", "text": part}
            )
        weight = 0 if message.role == "assistant" and not message.supervised else None
        said.append({"role": message.role, "content": content, "weight": weight})
    return {"images": [*images, *[None] * absent], "messages": said}
