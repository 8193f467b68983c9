"""`Sample`: the one form that every origin takes before it becomes tokens.

A web page, an image with its caption, a PDF page with its text, a conversation, a few-shot prompt and a chat request
are all an ordered tuple of segments. Image slots and turns exist only because a segment stands there: text that spells
`<image>` or `<end_of_utterance>` stays text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorgnette.errors import DataError
from lorgnette.images import ImageSource as ImageSource
from lorgnette.images import decode_base64 as decode_base64
from lorgnette.images import image_source
from lorgnette.untrusted import quoted

IMAGE_KEYS = ("image", "url", "path", "base64", "image_url")
"""Keys of a part that hold an image."""
_ROLES = ("system", "user", "assistant")
OTHER_NAMES = {"developer": "system"}
"""Roles of OpenAI's messages that are the same as one of ours."""


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """A run of text. `supervised` marks it as a training target."""

    text: str
    supervised: bool = False

    def __repr__(self) -> str:
        return f"Text({quoted(repr(self.text))}{', supervised=True' if self.supervised else ''})"


@dataclass(frozen=True, slots=True, repr=False)
class Image:
    """An image standing at this place of the sample, from any form that `image_source` takes."""

    source: ImageSource

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", image_source(self.source))

    def __repr__(self) -> str:
        of = f"<{len(self.source):,} bytes>" if isinstance(self.source, bytes) else quoted(repr(self.source))
        return f"Image({of})"


@dataclass(frozen=True, slots=True)
class Turn:
    """The start of a speaker's turn in a conversation; the turn lasts until the next `Turn` or the end of the sample.

    What a turn looks like as tokens (`User:`, `<end_of_utterance>`) is the chat template's business. The end of an
    utterance is learned where any text of its turn is.
    """

    role: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise DataError(f"role {quoted(self.role, 40)!r} is unknown; use one of {', '.join(_ROLES)}")


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
        """Name of the sample in messages: `meta["name"]` if it has one."""
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
        supervised: str | None = "assistant",
        meta: Mapping[str, Any] | None = None,
    ) -> Sample:
        """Read a conversation in the form that transformers, TRL and OpenAI clients use.

        The role `developer` is a system's.
        Each message is `{"role": ..., "content": ...}`. Content is a string, or a list of parts: a string,
        `{"type": "text", "text": ...}`, `{"type": "image", "image" | "url" | "path" | "base64": ...}`, or
        `{"type": "image_url", "image_url": {"url": ...}}` where the URL may be a `data:` URL. OpenAI's `input_text`
        and `input_image`, and parts without a type that hold one of these keys, are read alike. An image may have
        any form that `image_source` takes.

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
            segments.extend(_read_content(message["content"], role == supervised, where))
        return cls(tuple(segments), dict(meta or {}))


def _read_role(message: Mapping[str, Any], where: str) -> str:
    """The role of a message that is a text or parts, and calls no tools."""
    role = message["role"]
    if not isinstance(role, str):
        raise DataError(f"{where}: role is a {type(role).__name__}; use one of {', '.join(_ROLES)}")
    role = OTHER_NAMES.get(role, role)
    calls = next((key for key in ("tool_calls", "function_call") if message.get(key)), None)
    if calls is not None:
        raise DataError(f"{where}: {calls} are not supported; write the call as text in `content`, or leave it out")
    if role in ("tool", "function"):
        raise DataError(f"{where}: results of tools (role {role!r}) are not supported; put them into a user's text")
    if role not in _ROLES:
        raise DataError(f"{where}: role {quoted(role, 40)!r} is unknown; use one of {', '.join(_ROLES)} (or developer)")
    if message.get("content") is None:
        raise DataError(f"{where}: the {role}'s message has no content; leave the message out, or give a text")
    return role


def _read_content(content: Any, supervised: bool, where: str) -> Iterator[Segment]:
    if isinstance(content, str):
        content = [content]
    if not isinstance(content, Iterable) or isinstance(content, Mapping | bytes):
        raise DataError(f"{where}: content is a {type(content).__name__}; use a string or a list of parts")
    for index, part in enumerate(content):
        yield _read_part(part, supervised, f"{where}, part {index}")


def _read_part(part: Any, supervised: bool, where: str) -> Segment:
    if isinstance(part, str):
        return Text(part, supervised)
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: a part is a string or a mapping with a `type`, not a {type(part).__name__}")
    kind = part.get("type")
    if kind is None:  # as datasets and some clients write it: the key says what the part is
        kind = "text" if part.get("text") is not None else "image"
    if part.get("text") and any(part.get(key) is not None for key in IMAGE_KEYS):
        raise DataError(f"{where}: holds text and an image; give each a part of its own")
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(part.get("text"), str):
            raise DataError(f"{where}: a text part needs `text`, a string")
        return Text(part["text"], supervised)
    if kind == "image":
        given = [part[key] for key in ("image", "url", "path") if part.get(key) is not None]
        given += [_linked(part[key]) for key in ("image_url",) if part.get(key) is not None]
        if part.get("base64") is not None:
            given.append(decode_base64(part["base64"], where))
        if len(given) != 1:
            raise DataError(f"{where}: an image part needs exactly one of `image`, `url`, `path`, `base64`")
        return Image(image_source(given[0], where))
    if kind == "input_image" and part.get("image_url") is None and part.get("file_id") is not None:
        raise DataError(f"{where}: a `file_id` names a file of another service; give the image itself")
    if kind in ("image_url", "input_image"):
        return Image(image_source(_linked(part.get("image_url")), where))
    if kind in ("video", "video_url"):
        raise DataError(f"{where}: type {kind!r} is not supported; give some of its frames as images")
    raise DataError(f"{where}: type {quoted(repr(kind))} is unknown; use 'text', 'image' or 'image_url'")


def _linked(link: Any) -> Any:
    """OpenAI's chat completions have `{"url": ...}` where its responses have the URL."""
    return link.get("url") if isinstance(link, Mapping) and "url" in link else link
