"""Chat templates: from the turns of a `Sample` to pieces of text, special tokens and images.

What a user writes never passes through a template: `JinjaTemplate` gives it a unique sentinel in place of each content
and puts the content back afterwards, so a typed `<image>` or `<end_of_utterance>` cannot become structure.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, Protocol

import jinja2
import jinja2.sandbox

from lorgnette.errors import CheckpointError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.sample import Image, Sample, Text, Turn

IDEFICS2_TEMPLATE = (
    "{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Idefics2's template as jinja: what checkpoints carry. `Idefics2Template` is the same, as code."""


@dataclass(frozen=True, slots=True)
class Special:
    """A special token at this place. `learn` marks it as a training target."""

    token: str
    learn: bool = False


Piece = Text | Image | Special


class Template(Protocol):
    """How a conversation is written."""

    @property
    def source(self) -> str:
        """The template as jinja, to be saved as `chat_template.jinja`."""
        ...

    def pieces(self, sample: Sample, add_generation_prompt: bool = False) -> list[Piece]:
        """A conversation as text, special tokens and images, in order.

        add_generation_prompt: end with the opening of the assistant's next turn.
        """
        ...


def turns(sample: Sample) -> Iterator[tuple[str, list[Text | Image]]]:
    """Each turn of a conversation: its role and its contents."""
    role, contents = "", list[Text | Image]()
    for segment in sample.segments:
        if isinstance(segment, Turn):
            if role:
                yield role, contents
            role, contents = segment.role, []
        else:
            contents.append(segment)
    if role:
        yield role, contents


def _is_learned(contents: list[Text | Image]) -> bool:
    return any(isinstance(content, Text) and content.learn for content in contents)


@dataclass(frozen=True)
class Idefics2Template:
    """`User:` content `<end_of_utterance>` newline; a space follows the colon unless the first content is an image."""

    special: SpecialTokens = field(default_factory=SpecialTokens)
    source: str = IDEFICS2_TEMPLATE

    def pieces(self, sample: Sample, add_generation_prompt: bool = False) -> list[Piece]:
        """As `Template.pieces`. The space after the colon is learned with the text that it begins."""
        pieces: list[Piece] = []
        for role, contents in turns(sample):
            pieces.append(Text(f"{role.capitalize()}:"))
            opening = contents[0] if contents else Text("")
            if isinstance(opening, Text):
                pieces.append(Text(" ", opening.learn))
            pieces.extend(contents)
            pieces.append(Special(self.special.end_of_utterance, _is_learned(contents)))
            pieces.append(Text("\n"))
        if add_generation_prompt:
            pieces.append(Text("Assistant:"))
        return pieces


PROBE = "\u2003"
"""A rare space on both sides of a sentinel: if the template trims its contents, it is gone, and we trim the content."""
SENTINEL = f"(?P<left>{PROBE}?)\ue000(?P<number>[0-9]+)\ue001(?P<right>{PROBE}?)"


@dataclass(frozen=True)
class JinjaTemplate:
    """A checkpoint's own template, run in a sandbox. Contents reach it as sentinels only."""

    source: str
    tokenizer: Tokenizer

    def pieces(self, sample: Sample, add_generation_prompt: bool = False) -> list[Piece]:
        """As `Template.pieces`. Raises: CheckpointError if the template fails, or does not write each content once."""
        conversation = list(turns(sample))
        problem = "it leaves out or repeats a text or an image"
        for as_parts in (True, False):  # vision-language templates take a list of parts, many others only a string
            messages = _messages(conversation, as_parts)
            try:
                written = self._run(messages, add_generation_prompt)
            except Exception as error:  # a template is a program of unknown origin
                problem = str(error)
                continue
            pieces = _Reading(conversation, self.tokenizer.special.image).read(written, self._marks)
            if pieces is not None:
                return pieces
        raise CheckpointError(f"{sample.name}: the chat template cannot write this conversation: {problem}")

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """Finds sentinels and special tokens in what the template wrote."""
        specials = "|".join(re.escape(token) for token in self.tokenizer.special_tokens)
        return re.compile(f"{SENTINEL}|(?P<special>{specials})")

    @cached_property
    def _compiled(self) -> jinja2.Template:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        return environment.from_string(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        return JinjaTemplate, (self.source, self.tokenizer)  # a compiled template cannot go to another process

    def _run(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        variables = {"tools": None, "documents": None, **self.tokenizer.named_tokens}
        return self._compiled.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)


def _refuse(message: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise jinja2.TemplateError(message)


def _messages(conversation: list[tuple[str, list[Text | Image]]], as_parts: bool) -> list[dict[str, Any]]:
    """The conversation as a template takes it, each text (and in a plain string each image too) as its sentinel."""
    messages, number = [], 0
    for role, contents in conversation:
        parts: list[dict[str, str]] = []
        for content in contents:
            text = {"type": "text", "text": f"{PROBE}\ue000{number}\ue001{PROBE}"}
            parts.append({"type": "image"} if as_parts and isinstance(content, Image) else text)
            number += 1
        messages.append({"role": role, "content": parts if as_parts else "".join(part["text"] for part in parts)})
    return messages


class _Reading:
    """One reading of what a template wrote: puts the contents back and marks the end of each learned turn."""

    def __init__(self, conversation: list[tuple[str, list[Text | Image]]], image_token: str) -> None:
        self.image_token = image_token
        self.contents = [content for _, contents in conversation for content in contents]
        self.turn_of = [turn for turn, (_, contents) in enumerate(conversation) for _ in contents]
        self.learned = [_is_learned(contents) for _, contents in conversation]
        self.unread = [len(contents) for _, contents in conversation]
        self.images = (number for number, content in enumerate(self.contents) if isinstance(content, Image))
        self.seen: set[int] = set()
        self.closing = False
        """A learned turn has been read to its end: the next special token closes it, and is learned."""
        self.pieces: list[Piece] = []

    def read(self, written: str, marks: re.Pattern[str]) -> list[Piece] | None:
        """The pieces, or None if a content is missing or repeated."""
        at = 0
        for mark in marks.finditer(written):
            self._literal(written[at : mark.start()])
            at = mark.end()
            token = mark["special"]
            if token is not None and token != self.image_token:
                self.pieces.append(Special(token, learn=self.closing))
                self.closing = False
                continue
            number = next(self.images, None) if token is not None else int(mark["number"])
            if number is None or number >= len(self.contents) or number in self.seen:
                return None
            self._content(number, mark)
        self._literal(written[at:])
        return self.pieces if len(self.seen) == len(self.contents) else None

    def _literal(self, text: str) -> None:
        if text:
            self.pieces.append(Text(text))

    def _content(self, number: int, mark: re.Match[str]) -> None:
        content, turn = self.contents[number], self.turn_of[number]
        if isinstance(content, Text):
            text = content.text if mark["left"] else content.text.lstrip()
            content = Text(text if mark["right"] else text.rstrip(), content.learn)
            self._learn_space_before(content)
        self.pieces.append(content)
        self.seen.add(number)
        self.unread[turn] -= 1
        self.closing = self.learned[turn] and not self.unread[turn]

    def _learn_space_before(self, content: Text) -> None:
        """The model writes the space between `Assistant:` and its answer, so that space is learned with the answer."""
        before = self.pieces[-1] if self.pieces else None
        if content.learn and isinstance(before, Text) and not before.learn and before.text.endswith(" "):
            kept = before.text.rstrip(" ")
            self.pieces[-1:] = [Text(kept), Text(before.text[len(kept) :], True)]
