"""From a question of a benchmark to a Sample: in whose words, as a conversation or as a document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, Literal

from lorgnette.data.record import Refused
from lorgnette.sample import Image, Sample, Segment, Text, Turn

Form = Literal["chat", "base"]
"""A conversation, or a document that a model without instruction tuning continues."""

_MARK = re.compile(r"<image (\d+)>")


@dataclass(frozen=True, slots=True)
class Question:
    """A row of a benchmark, before anyone has worded it."""

    text: str
    images: tuple[Image, ...]
    answers: tuple[str, ...]
    """References; letters where there are options. Empty where they are secret."""
    shown: str = ""
    """The answer that training teaches and that examples in a prompt show; the first reference if empty."""
    options: tuple[str, ...] = ()
    id: str = ""
    kind: str = ""
    hint: str = ""
    query: str = ""
    """The benchmark's own wording of the whole question, if it has one."""
    note: str = ""
    """What kind of answer is wanted, in a sentence."""
    form: str = ""
    group: str = ""
    marked: bool = False
    """Whether images stand where the text says `<image 1>`, and not before it."""

    def rotated(self, turns: int) -> Question:
        """The options moved `turns` places to the front, in a ring, and the letter of the answer with them."""
        size = len(self.options)
        options = self.options[turns:] + self.options[:turns]
        letters = {old: ascii_uppercase[(place - turns) % size] for place, old in enumerate(ascii_uppercase[:size])}
        answers = tuple(letters.get(answer, answer) for answer in self.answers)
        shown = letters.get(self.shown, self.shown)
        return replace(self, options=options, answers=answers, shown=shown, id=f"{self.id}+{turns}")


@dataclass(frozen=True, slots=True)
class Wording:
    """A way to put a question. `ask` and `choices` may name {question}, {options}, {hint}, {query} and {note}."""

    ask: str
    choices: str = ""
    """Used in place of `ask` where there are options; empty for the same."""
    answer: str = "{answer}"
    letter: str = ""
    """As `answer`, where it is the letter of an option; empty for the same."""
    option: str = "{letter}. {text}"
    hint: str = "Hint: {hint}\n"
    """How a hint is written, if the question has one."""
    instruction: str = ""
    """Stands once before everything else of a document."""
    change: Callable[[Question], Question] | None = None
    """Applied to the question first."""

    def described(self) -> str:
        """For the record: a change of wording is a change of settings."""
        return " | ".join(part for part in (self.instruction, self.ask, self.choices, self.letter) if part)

    def request(self, question: Question) -> str:
        """The whole of what is asked, as text."""
        pairs = zip(ascii_uppercase, question.options, strict=False)
        values: dict[str, Any] = {
            "question": question.text,
            "options": "\n".join(self.option.format(letter=letter, text=text) for letter, text in pairs),
            "hint": self.hint.format(hint=question.hint) if question.hint else "",
            "query": question.query or question.text,
            "note": question.note,
        }
        template = self.choices if question.options and self.choices else self.ask
        return template.format(**values).strip("\n")

    def reply(self, answer: str, lettered: bool) -> str:
        """An answer as the model should say it. lettered: whether it is the letter of an option."""
        return (self.letter if lettered and self.letter else self.answer).format(answer=answer)


def worded(question: Question, wording: Wording, form: Form, name: str) -> Sample:
    """The question as a Sample whose last text is the answer, to be learned; `prompt_of` cuts it off.

    Raises: Refused for more options than letters, or images that the text marks and that are not there.
    """
    if len(question.options) > len(ascii_uppercase):
        raise Refused("too many options", f"{len(question.options)}, more than there are letters")
    if wording.change:
        question = wording.change(question)
    lettered = bool(question.options)
    shown = question.shown or next(iter(question.answers), "")
    request = tuple(_request(question, wording.request(question)))
    space = "" if form == "chat" else " "
    reply = Text(space + wording.reply(shown, lettered), learn=True)
    letters = ascii_uppercase[: len(question.options)]
    meta = {
        "name": name,
        "id": question.id,
        "answers": question.answers,
        "options": question.options,
        "candidates": tuple(space + wording.reply(letter, True) for letter in letters),
        "kind": question.kind,
        "form": question.form,
        "group": question.group,
    }
    if form == "chat":
        return Sample((Turn("user"), *request, Turn("assistant"), reply), meta)
    return Sample((*request, reply), meta)


def _request(question: Question, text: str) -> Iterator[Segment]:
    """Images and text: each image where the text first marks it, those that it never marks before it."""
    if not question.marked:
        yield from question.images
        yield Text(text)
        return
    marks = [int(number) - 1 for number in _MARK.findall(text)]
    lost = [mark + 1 for mark in marks if mark not in range(len(question.images))]
    if lost:
        raise Refused("no image", f"the question shows image {lost[0]}, and there are {len(question.images)}")
    yield from (image for place, image in enumerate(question.images) if place not in marks)
    seen, start = set[int](), 0
    for mark in _MARK.finditer(text):
        place = int(mark[1]) - 1
        if place not in seen:
            seen.add(place)
            if text[start : mark.start()]:
                yield Text(text[start : mark.start()])
            yield question.images[place]
            start = mark.end()
    if text[start:]:
        yield Text(text[start:])
