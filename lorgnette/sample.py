"""`Sample`: the one form that every origin takes before it becomes tokens.

A web page, an image with its caption, a PDF page with its text, a conversation, a few-shot prompt and a chat request
are all an ordered tuple of segments. Image slots and turns exist only because a segment stands there: text that spells
`<image>` or `<end_of_utterance>` stays text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

from lorgnette.errors import DataError
from lorgnette.untrusted import quoted

ImageSource = PIL.Image.Image | bytes | str | Path
"""A decoded image, the bytes of an image file, or the path or URL of one."""

ROLES = ("system", "user", "assistant")
OTHER_NAMES = {"developer": "system"}
"""Roles of OpenAI's messages that are the same as one of ours."""


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text. `learn` marks it as a training target."""

    text: str
    learn: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An image standing at this place of the sample."""

    source: ImageSource


@dataclass(frozen=True, slots=True)
class Turn:
    """The start of a speaker's turn in a conversation; the turn lasts until the next `Turn` or the end of the sample.

    What a turn looks like as tokens (`User:`, `<end_of_utterance>`) is the chat template's business. The end of an
    utterance is learned where any text of its turn is.
    """

    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"role {quoted(self.role, 40)!r} is unknown; use one of {', '.join(ROLES)}")


Segment = Text | Image | Turn


@dataclass(frozen=True, slots=True)
class Sample:
    """An ordered tuple of segments and what is known about them.

    A sample without a `Turn` is a plain document; a sample whose first segment is a `Turn` is a conversation. `meta` is
    never seen by the model: use it for the origin (`source`, `row`), an answer to score, and the like.
    """

    segments: tuple[Segment, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for segment in self.segments:
            if not isinstance(segment, Text | Image | Turn):
                raise DataError(f"a sample holds Text, Image and Turn segments, not {type(segment).__name__}")
        turns = [isinstance(segment, Turn) for segment in self.segments]
        if any(turns) and not turns[0]:
            raise DataError("a conversation starts with a Turn: text or an image stands before the first one")

    @property
    def name(self) -> str:
        """How messages refer to this sample: `meta["name"]` if it has one."""
        return str(self.meta.get("name", "unnamed sample"))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(segment for segment in self.segments if isinstance(segment, Image))

    @property
    def text(self) -> str:
        """All text, joined without separators, for search and display."""
        return "".join(segment.text for segment in self.segments if isinstance(segment, Text))

    @property
    def is_chat(self) -> bool:
        return bool(self.segments) and isinstance(self.segments[0], Turn)

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Mapping[str, Any]],
        *,
        learn: str | None = "assistant",
        meta: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Read a conversation in the form that transformers, TRL and OpenAI clients use.

        The role `developer` is a system's.
        Each message is `{"role": ..., "content": ...}`. Content is a string, or a list of parts: a string,
        `{"type": "text", "text": ...}`, `{"type": "image", "image" | "url" | "path" | "base64": ...}`, or
        `{"type": "image_url", "image_url": {"url": ...}}` where the URL may be a `data:` URL.

        learn: the role whose text becomes a training target; None for nobody's.
        Raises: DataError naming the message and part that cannot be read.
        """
        if not isinstance(messages, Iterable) or isinstance(messages, Mapping | str | bytes):
            raise DataError(f"messages are a list of {{'role': ..., 'content': ...}}, not a {type(messages).__name__}")
        segments: list[Segment] = []
        for number, message in enumerate(messages):
            where = f"message {number}"
            if not isinstance(message, Mapping) or "role" not in message:
                raise DataError(f"{where}: expected {{'role': ..., 'content': ...}}, got {quoted(message, 120)}")
            role = _read_role(message, where)
            segments.append(Turn(role))
            segments.extend(_read_content(message["content"], role == learn, where))
        return cls(tuple(segments), dict(meta or {}))


def _read_role(message: Mapping[str, Any], where: str) -> str:
    """The role of a message that is a text or parts, and calls no tools."""
    role = message["role"]
    if not isinstance(role, str):
        raise DataError(f"{where}: role is a {type(role).__name__}; use one of {', '.join(ROLES)}")
    role = OTHER_NAMES.get(role, role)
    calls = next((key for key in ("tool_calls", "function_call") if message.get(key)), None)
    if calls is not None:
        raise DataError(f"{where}: {calls} are not supported; write the call as text in `content`, or leave it out")
    if role in ("tool", "function"):
        raise DataError(f"{where}: results of tools (role {role!r}) are not supported; put them into a user's text")
    if role not in ROLES:
        raise DataError(f"{where}: role {quoted(role, 40)!r} is unknown; use one of {', '.join(ROLES)} (or developer)")
    if message.get("content") is None:
        raise DataError(f"{where}: the {role}'s message has no content; leave the message out, or give a text")
    return role


def _read_content(content: Any, learn: bool, where: str) -> Iterator[Segment]:
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes):
        raise DataError(f"{where}: content is a {type(content).__name__}; use a string or a list of parts")
    for index, part in enumerate(content):
        yield _read_part(part, learn, f"{where}, part {index}")


def _read_part(part: Any, learn: bool, where: str) -> Segment:
    if isinstance(part, str):
        return Text(part, learn)
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: a part is a string or a mapping with a `type`, not a {type(part).__name__}")
    kind = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise DataError(f"{where}: a text part needs `text`, a string")
        return Text(part["text"], learn)
    if kind == "image":
        given = [part[key] for key in ("image", "url", "path") if part.get(key) is not None]
        if part.get("base64") is not None:
            given.append(decode_base64(part["base64"], where))
        if len(given) != 1:
            raise DataError(f"{where}: an image part needs exactly one of `image`, `url`, `path`, `base64`")
        return Image(_checked(given[0], where))
    if kind == "image_url":
        link = part.get("image_url")
        link = link.get("url") if isinstance(link, Mapping) else link
        return Image(_checked(link, where))
    raise DataError(f"{where}: type {kind!r} is unknown; use 'text', 'image' or 'image_url'")


def _checked(source: Any, where: str) -> ImageSource:
    if isinstance(source, str) and source.startswith("data:"):
        return decode_base64(source.partition(",")[2], where)
    if isinstance(source, PIL.Image.Image | bytes | str | Path):
        return source
    raise DataError(f"{where}: an image is a PIL image, bytes, a path or a URL, not a {type(source).__name__}")


def decode_base64(text: Any, where: str) -> bytes:
    """The bytes behind a base64 string. Raises DataError naming `where`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise DataError(f"{where}: the image is not valid base64") from None
