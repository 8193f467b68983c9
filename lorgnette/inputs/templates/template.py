"""Chat templates: from the turns of a `Sample` to pieces of text, special tokens and images.

A checkpoint's template may compute on what a user writes, but a typed `<image>` or `<end_of_utterance>` cannot become
structure: `JinjaTemplate` hands contents over as strings that know the origin of each character
(`lorgnette.inputs.templates.traced`), and only characters of the template itself spell special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import jinja2

from lorgnette.errors import CheckpointError, DataError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.templates.budget import Budget, limited
from lorgnette.inputs.templates.sandbox import compiled
from lorgnette.inputs.templates.traced import TEMPLATE, joined, origin_of, traced
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.sample import Image, Sample, Text, Turn
from lorgnette.untrusted import reason_of

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
    """A special token at this place. `supervised` marks it as a training target."""

    token: str
    supervised: bool = False


Piece = Text | Image | Special


class Template(Protocol):
    """Chat template: writes a conversation as the text of a prompt."""

    @property
    def source(self) -> str:
        """The template as jinja, to be saved as `chat_template.jinja`."""
        ...

    def pieces(
        self, sample: Sample, add_generation_prompt: bool = False, continue_final_message: bool = False
    ) -> list[Piece]:
        """A conversation as text, special tokens and images, in order.

        add_generation_prompt: end with the opening of the assistant's next turn.
        continue_final_message: end with the last text of the last turn, without what closes the turn. Not both.
        Raises: DataError if there is no text to continue, or both are asked for.
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


def check_ending(sample: Sample, add_generation_prompt: bool, continue_final_message: bool) -> None:
    """Raises: DataError if a conversation cannot end in the way that is asked for."""
    if continue_final_message and add_generation_prompt:
        raise DataError(f"{sample.name}: add_generation_prompt and continue_final_message exclude each other")
    if continue_final_message and not can_continue(sample):
        raise DataError(f"{sample.name}: continue_final_message needs a last turn with a text to continue")


def can_continue(sample: Sample) -> bool:
    """Return whether the last turn of a conversation holds a text."""
    last = next((contents for _, contents in reversed(list(turns(sample)))), [])
    return any(isinstance(content, Text) for content in last)


def _is_supervised(contents: list[Text | Image]) -> bool:
    return any(isinstance(content, Text) and content.supervised for content in contents)


@dataclass(frozen=True)
class Idefics2Template:
    """`User:` content `<end_of_utterance>` newline; a space follows the colon unless the first content is an image."""

    special: SpecialTokens = field(default_factory=SpecialTokens)

    @property
    def source(self) -> str:
        """Idefics2's template, with these special tokens in place of its own."""
        plain, special = SpecialTokens(), self.special
        source = IDEFICS2_TEMPLATE.replace(plain.end_of_utterance, special.end_of_utterance)
        return source.replace(plain.image, special.image)

    def pieces(
        self, sample: Sample, add_generation_prompt: bool = False, continue_final_message: bool = False
    ) -> list[Piece]:
        """As `Template.pieces`. The space after the colon is learned with the text that it begins."""
        check_ending(sample, add_generation_prompt, continue_final_message)
        pieces: list[Piece] = []
        for role, contents in turns(sample):
            pieces.append(Text(f"{role.capitalize()}:"))
            opening = contents[0] if contents else Text("")
            if isinstance(opening, Text):
                pieces.append(Text(" ", opening.supervised))
            pieces.extend(contents)
            pieces.append(Special(self.special.end_of_utterance, _is_supervised(contents)))
            pieces.append(Text("\n"))
        if add_generation_prompt:
            pieces.append(Text("Assistant:"))
        if continue_final_message:
            del pieces[-2:]  # the end of the utterance and a newline
            while not isinstance(pieces[-1], Text):
                pieces.pop()
        return pieces


_TAG = "CONTINUE_FINAL_MESSAGE_TAG "
"""Tag that transformers appends to a text to be continued; the rendered text is cut there."""


@dataclass(frozen=True)
class JinjaTemplate:
    """A checkpoint's own template, run in a sandbox, with the result that transformers' `apply_chat_template` has.

    A system turn may be left out by the template, and parts of a text; images and whole turns of others may not.
    """

    source: str
    tokenizer: Tokenizer

    def pieces(
        self, sample: Sample, add_generation_prompt: bool = False, continue_final_message: bool = False
    ) -> list[Piece]:
        """As `Template.pieces`. Raises: DataError; CheckpointError if the template fails or leaves out a content."""
        check_ending(sample, add_generation_prompt, continue_final_message)
        conversation = _Conversation.of(sample, self.tokenizer.special.image, continue_final_message)
        problem, best = "", None
        for as_parts in (True, False):  # vision-language templates take a list of parts, many others only a string
            try:
                with limited(Budget(conversation.characters, len(conversation.contents))) as budget:
                    written = self._render_once(conversation, as_parts, add_generation_prompt, budget)
                if best is None or len(written.missing) < len(best.missing):
                    best = written
            except Exception as error:  # a template is a program of unknown origin
                problem = reason_of(error)
            if best is not None and not best.missing:
                break
        if best is not None:
            problem = conversation.objection(best.missing)
            if not problem:
                return _Reading(conversation, best, self._marks).pieces
        raise CheckpointError(f"{sample.name}: the chat template cannot write this conversation: {problem}")

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        """Finds special tokens in what the template wrote."""
        return re.compile("|".join(re.escape(token) for token in self.tokenizer.special_tokens))

    @cached_property
    def _compiled(self) -> jinja2.Template:
        with limited(Budget()):
            return compiled(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        return JinjaTemplate, (self.source, self.tokenizer)  # a compiled template cannot go to another process

    def _render_once(
        self, conversation: _Conversation, as_parts: bool, add_generation_prompt: bool, budget: Budget
    ) -> _OneRendering:
        """One rendering, read as far as to know which contents it holds."""

        def run(instead: Mapping[int, str]) -> str:
            variables: dict[str, Any] = {"tools": None, "documents": None, **self.tokenizer.named_tokens}
            variables |= {"messages": conversation.messages(as_parts, instead)}
            pieces = self._compiled.generate(**variables, add_generation_prompt=add_generation_prompt)
            return conversation.cut(joined(budget.read(pieces)))

        written = _OneRendering.of(run({}), conversation, self._marks)
        silent = {number: "x" for number in written.missing if isinstance(conversation.contents[number], Text)}
        if not silent:
            return written
        # Nothing is left of these: they are empty, or the template leaves them out. With an x in each it shows.
        return written.with_places(run(silent), silent)


@dataclass(frozen=True)
class _Conversation:
    """Turns, and their contents by number."""

    turns: list[tuple[str, list[Text | Image]]]
    contents: list[Text | Image]
    image_token: str
    continued: int | None
    """The number of the text that is to be continued."""

    @classmethod
    def of(cls, sample: Sample, image_token: str, continue_final_message: bool) -> _Conversation:
        every = list(turns(sample))
        contents = [content for _, inside in every for content in inside]
        texts = [number for number, content in enumerate(contents) if isinstance(content, Text)]
        return cls(every, contents, image_token, texts[-1] if continue_final_message else None)

    @cached_property
    def turn_of(self) -> list[int]:
        """For each content the number of its turn."""
        return [turn for turn, (_, inside) in enumerate(self.turns) for _ in inside]

    @cached_property
    def characters(self) -> int:
        return sum(len(content.text) for content in self.contents if isinstance(content, Text))

    def messages(self, as_parts: bool, instead: Mapping[int, str]) -> list[dict[str, Any]]:
        """The conversation as a template takes it: contents as parts, or each turn as one string.

        instead: for some contents, by number, what is written in their place.
        """
        messages, number = [], 0
        for role, contents in self.turns:
            parts: list[dict[str, str]] = []
            for content in contents:
                if isinstance(content, Image) and as_parts:
                    parts.append({"type": "image"})
                else:
                    text = content.text if isinstance(content, Text) else self.image_token
                    text = instead.get(number, text)
                    tag = _TAG if number == self.continued else ""
                    origin = chr(number + 1) * len(text) + self._tag_origin * len(tag)
                    parts.append({"type": "text", "text": traced(text + tag, origin)})
                number += 1
            messages.append({"role": role, "content": parts if as_parts else joined(part["text"] for part in parts)})
        return messages

    @property
    def _tag_origin(self) -> str:
        return chr(len(self.contents) + 1)

    def cut(self, written: str) -> str:
        """Cut the text after the content that is to be continued, as transformers does."""
        if self.continued is None:
            return written
        origin = origin_of(written)
        end = origin.rfind(self._tag_origin) + 1
        start = len(origin[:end].rstrip(self._tag_origin))
        if written[start:end].rstrip() != _TAG.rstrip():
            raise jinja2.TemplateError("it does not write the last text as it is, so this cannot be continued")
        content = self.contents[self.continued]
        if isinstance(content, Text) and content.text.strip() not in str.__str__(written[:start]):
            raise jinja2.TemplateError("it changes the last text, so this cannot be continued")
        if self._tag_origin in origin[:start]:
            raise jinja2.TemplateError("it writes the last text twice, so this cannot be continued")
        trimmed = not str.startswith(written, _TAG, start)  # a space of the template's counts too, as upstream
        return written[:start].rstrip() if trimmed else written[:start]

    def objection(self, missing: set[int]) -> str:
        """Return why a rendering without these contents cannot be used; empty if it can."""
        for number in sorted(missing):
            role = self.turns[self.turn_of[number]][0]
            if isinstance(self.contents[number], Image) or role != "system":
                kind = "an image" if isinstance(self.contents[number], Image) else "a text"
                return f"it leaves out or repeats {kind} of the {role}'s turn {self.turn_of[number] + 1}"
        return ""


@dataclass(frozen=True)
class _OneRendering:
    """Text that a template wrote, and the place of each content in it."""

    text: str
    spans: list[tuple[int, int, int]]
    """Start, end and number of every run of characters of a content, in order, and of images."""
    missing: set[int]

    @classmethod
    def of(cls, written: str, conversation: _Conversation, marks: re.Pattern[str]) -> _OneRendering:
        text, origin = str.__str__(written), origin_of(written)
        spans, images = [], iter(n for n, one in enumerate(conversation.contents) if isinstance(one, Image))
        for run in re.finditer(r"(.)\1*", origin, re.S):
            if run[1] != TEMPLATE:
                spans.append((run.start(), run.end(), ord(run[1]) - 1))
                continue
            for mark in marks.finditer(text, run.start(), run.end()):
                if mark[0] == conversation.image_token:
                    spans.append((mark.start(), mark.end(), next(images, -1)))
        numbers = [number for _, _, number in spans]
        pictures = [n for n in numbers if n < 0 or isinstance(conversation.contents[n], Image)]
        whole = all(text[a:b] == conversation.image_token for a, b, n in spans if n in pictures)
        if -1 in pictures or len(set(pictures)) < len(pictures) or not whole:
            raise jinja2.TemplateError("it leaves out or repeats an image")
        return cls(text, spans, set(range(len(conversation.contents))) - set(numbers))

    def with_places(self, shown: str, silent: Mapping[int, str]) -> _OneRendering:
        """Itself, with the places of contents of which nothing is left.

        shown: the same with a character in the place of each. silent: these contents, by number.
        """
        origin = origin_of(shown)
        ours = {chr(number + 1): number for number in silent}
        found = [(at, ours[one]) for at, one in enumerate(origin) if one in ours]
        seen = {number for _, number in found}
        rest = "".join(char for char, one in zip(str.__str__(shown), origin, strict=True) if one not in ours)
        places = [(at - before, at - before, number) for before, (at, number) in enumerate(found)]
        spans = sorted([*self.spans, *places], key=lambda span: span[:2]) if rest == self.text else self.spans
        return _OneRendering(self.text, spans, self.missing - seen)


class _Reading:
    """One reading of what a template wrote, as pieces: marks the end of each learned turn."""

    def __init__(self, conversation: _Conversation, written: _OneRendering, marks: re.Pattern[str]) -> None:
        self.contents, self.turn_of = conversation.contents, conversation.turn_of
        self.supervised = [_is_supervised(contents) for _, contents in conversation.turns]
        last = {self.turn_of[number]: place for place, (_, _, number) in enumerate(written.spans)}
        self.closing = False
        """A learned turn has been read to its end: the next special token closes it, and is supervised."""
        self.pieces: list[Piece] = []
        at = 0
        for place, (start, end, number) in enumerate(written.spans):
            self._template_text(written.text[at:start], marks)
            self._content(number, written.text[start:end])
            turn = self.turn_of[number]
            self.closing = self.supervised[turn] and last[turn] == place
            at = end
        self._template_text(written.text[at:], marks)

    def _template_text(self, text: str, marks: re.Pattern[str]) -> None:
        at = 0
        for mark in marks.finditer(text):
            self._literal(text[at : mark.start()])
            self.pieces.append(Special(mark[0], supervised=self.closing))
            self.closing = False
            at = mark.end()
        self._literal(text[at:])

    def _literal(self, text: str) -> None:
        if text:
            self.pieces.append(Text(text))

    def _content(self, number: int, text: str) -> None:
        content = self.contents[number]
        if isinstance(content, Text):
            content = Text(text, content.supervised)
            self._learn_space_before(content)
        self.pieces.append(content)

    def _learn_space_before(self, content: Text) -> None:
        """The model writes the space between `Assistant:` and its answer, so that space is learned with the answer."""
        before = self.pieces[-1] if self.pieces else None
        if content.supervised and isinstance(before, Text) and not before.supervised and before.text.endswith(" "):
            kept = before.text.rstrip(" ")
            self.pieces[-1:] = [Text(kept), Text(before.text[len(kept) :], True)]
