"""Conversations in the forms that people write them in, each read as messages of a role and parts.

`messages` (OpenAI, TRL, transformers), `conversations` (ShareGPT, LLaVA), `prompt` with `completion` or `chosen` (TRL),
`instruction`, `input` and `output` (Alpaca) and `query` with `response`. Of preferences the chosen answer is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.columns import as_list, is_absent, is_blank, list_in, one_or_list
from lorgnette.data.sources.reading.values import missing, read_image
from lorgnette.errors import DataError
from lorgnette.sample import Image, decode_base64
from lorgnette.untrusted import quoted

LISTS = ("messages", "conversations", "conversation")
"""Columns that hold a whole conversation, in the order in which they are looked at."""
ANSWERED = (("prompt", "", "completion"), ("instruction", "input", "output"), ("query", "", "response"))
"""Columns of a question, what belongs to it, and its answer."""
COLUMNS = (*LISTS, "system", "chosen", "label", "history", *(name for form in ANSWERED for name in form if name))

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}
"""A speaker's name in small letters -> role."""
TOOLS = frozenset(
    {"tool", "function", "function_call", "function_response", "observation", "tool_call", "tool_response", "ipython"}
)
"""Speakers of rows that are about calling tools, which no chat template of a VLM here writes."""
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})
SOURCES = ("image", "image_url", "url", "path", "source", "bytes", "base64", "data")
"""Fields of a part that say what its image is."""


class Place(Enum):
    """A part that stands for an image of the row's own column."""

    IMAGE = "image"


Part = str | Image | Place


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    parts: tuple[Part, ...]
    supervised: bool = False
    """True if the text is a training target: an assistant's text that is not blank, unless the row says otherwise."""


def messages_of(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row, in order. Raises: Refused naming the message and what is wrong with it."""
    values = _values(row)
    messages = [_message(one, f"message {number}", row) for number, one in enumerate(values)]
    system = row.get("system")
    if isinstance(system, str) and not is_blank(system):
        messages.insert(0, Message("system", (system,)))
    if not messages:
        raise Refused("no text", "the conversation is empty")
    return messages


def _values(row: Mapping[str, Any]) -> list[Any]:
    """The messages of a row as they stand there."""
    for column in LISTS:
        if not is_absent(row.get(column)):
            values = list_in(row, column)
            answered = bool(values) and isinstance(values[-1], Mapping) and _role_or_none(values[-1]) == "assistant"
            return values if answered or is_absent(row.get("chosen")) else [*values, *_said(row["chosen"], "assistant")]
    for question, more, answer in ANSWERED:
        column = "chosen" if question == "prompt" and is_absent(row.get(answer)) else answer
        if column not in row or is_absent(row[column]):
            continue
        if column == "completion" and row.get("label") is False:
            raise Refused("rejected answer", "'label' says that the completion is not wanted")
        return _answered(row, question, more, column)
    raise missing(row, next((column for column in LISTS if column in row), "messages"))


def _answered(row: Mapping[str, Any], question: str, more: str, answer: str) -> list[Any]:
    """A question and its answer as messages; an answer that is a whole conversation is that."""
    answers = _said(row[answer], "assistant")
    if answer == "chosen" and answers and isinstance(answers[0], Mapping) and _role_or_none(answers[0]) != "assistant":
        return answers
    asked = row.get(question)
    if is_absent(asked):
        raise Refused("no question", f"{question!r} is missing or blank")
    if isinstance(asked, str) and more and isinstance(row.get(more), str) and not is_blank(row[more]):
        asked = f"{asked}\n{row[more]}"
    before: list[Any] = []
    for turn in as_list(row.get("history")) or []:
        if not (isinstance(turn, list | tuple) and len(turn) == 2):
            raise Refused("wrong type", "'history' is no list of pairs of a question and its answer")
        before += [*_said(turn[0], "user"), *_said(turn[1], "assistant")]
    return [*before, *_said(asked, "user"), *answers]


def _said(value: Any, role: str) -> list[Any]:
    """Messages as they are, or a text as a message of this role."""
    return [{"role": role, "content": value}] if isinstance(value, str) else one_or_list(value) or []


def _role_or_none(message: Mapping[str, Any]) -> str | None:
    speaker = _speaker(message)
    return SPEAKERS.get(speaker.strip().casefold()) if isinstance(speaker, str) else None


def _speaker(message: Mapping[str, Any]) -> Any:
    return message.get("role") if message.get("role") is not None else message.get("from")


def _message(message: Any, where: str, row: Mapping[str, Any]) -> Message:
    if not isinstance(message, Mapping):
        raise Refused("wrong type", f"{where} is a {type(message).__name__}, not a mapping")
    speaker = _speaker(message)
    if isinstance(speaker, str) and speaker.strip().casefold() in TOOLS:
        raise Refused("tool calls", f"{where} is by {quoted(speaker, 40)!r}")
    if message.get("tool_calls") or message.get("function_call"):
        raise Refused("tool calls", f"{where} calls a tool")
    role = _role_or_none(message)
    if role is None:
        raise Refused("role", f"{where} is by {quoted(repr(speaker), 40)}; known are {', '.join(SPEAKERS)}")
    if not any(key in message for key in ("content", "value")):
        raise missing(message, "content", f", in {where}")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    parts = tuple(_part(one, f"{where}, part {number}", row) for number, one in enumerate(_parts(content, where)))
    text = "".join(part for part in parts if isinstance(part, str))
    return Message(role, parts, role == "assistant" and not is_blank(text) and _is_wanted(message, where))


def _parts(content: Any, where: str) -> list[Any]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    parts = one_or_list(content)
    if parts is None:
        raise Refused("wrong type", f"the content of {where} is a {type(content).__name__}, not a text or a list")
    return parts


def _is_wanted(message: Mapping[str, Any], where: str) -> bool:
    """Return whether the row wants a message learned: not where it weighs nothing, or says so itself."""
    weight = message.get("weight")
    if weight is not None and not isinstance(weight, int | float):
        raise Refused("wrong type", f"the weight of {where} is a {type(weight).__name__}, not a number")
    return not (weight == 0 or message.get("train") is False or message.get("loss") is False)


def _part(part: Any, where: str, row: Mapping[str, Any]) -> Part:
    """A text, an image found from the row's folder, or a place for one; parquet has all keys in all parts."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise Refused("wrong type", f"{where} is a {type(part).__name__}, not a text or a mapping")
    kind = part.get("type")
    source = next((key for key in SOURCES if not is_absent(part.get(key))), None)
    if kind is None:
        kind = "image" if source is not None else "text"
    if not isinstance(kind, str) or kind not in TEXT_PARTS | IMAGE_PARTS:
        raise Refused("unknown part", f"{where} is of type {quoted(repr(kind), 40)}; known are text and image")
    if kind in TEXT_PARTS:
        text = part.get("text") if part.get("text") is not None else part.get("content")
        if not isinstance(text, str):
            raise Refused("wrong type", f"the text of {where} is a {type(text).__name__}, not a string")
        return text
    if source is None:
        return Place.IMAGE
    return _image(part, source, row, where)


def _image(part: Mapping[str, Any], key: str, row: Mapping[str, Any], where: str) -> Image:
    value = part[key]
    if isinstance(value, Mapping):  # {"url": ...} of OpenAI; {"type": "base64", "data": ...} of Anthropic
        inner = next((one for one in ("base64", "data") if isinstance(value.get(one), str)), None)
        if inner is not None:
            return _from_base64(value[inner], where)
    if key in ("base64", "data") and isinstance(value, str):
        return _from_base64(value, where)
    if key == "path" and not is_absent(part.get("bytes")):
        value = {"bytes": part["bytes"], "path": value}
    return read_image(value, row, where)


def _from_base64(text: str, where: str) -> Image:
    try:
        return Image(decode_base64(text, where))
    except DataError as error:
        raise Refused("no image", quoted(str(error))) from None
