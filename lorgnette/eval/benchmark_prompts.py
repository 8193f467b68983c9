"""Prompt templates of benchmarks: a question becomes a Sample, a conversation or a document, in one of three variants.

`paper`: for conversations, how the authors had Idefics2 asked (their contribution to VLMEvalKit) and taught it (the
hints and letters of The Cauldron); the documents of the few-shot tables are not published, and ours are in the manner
of Idefics1's. `lmms-eval` and `vlmevalkit`: what these harnesses ask a model that they know nothing special about.
The templates of training are in `data/prompts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, Literal

from lorgnette.data.prompts import VERY_BRIEF, WITH_LETTER
from lorgnette.data.record import Refused
from lorgnette.sample import Image, Sample, Segment, Text, Turn

Variant = Literal["paper", "lmms-eval", "vlmevalkit"]
VARIANTS: tuple[Variant, ...] = ("paper", "lmms-eval", "vlmevalkit")
"""Whose wording: the paper's (as far as it is known), or that of a harness for models of any kind."""
PromptForm = Literal["chat", "base"]
"""A conversation, or a document that a model without instruction tuning continues."""

_MARK = re.compile(r"<image (\d+)>")


@dataclass(frozen=True, slots=True)
class Question:
    """A row of a benchmark, before a template has worded it."""

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
    """Sentence about the kind of answer that is wanted."""
    form: str = ""
    group: str = ""
    marked: bool = False
    """True if images stand where the text has `<image 1>` rather than before it."""

    def rotated(self, turns: int) -> Question:
        """The options moved `turns` places to the front, in a ring, and the letter of the answer with them."""
        size = len(self.options)
        options = self.options[turns:] + self.options[:turns]
        letters = {old: ascii_uppercase[(place - turns) % size] for place, old in enumerate(ascii_uppercase[:size])}
        answers = tuple(letters.get(answer, answer) for answer in self.answers)
        shown = letters.get(self.shown, self.shown)
        return replace(self, options=options, answers=answers, shown=shown, id=f"{self.id}+{turns}")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt template. `ask` and `choices` may name {question}, {options}, {hint}, {query} and {note}."""

    ask: str
    choices: str = ""
    """Used in place of `ask` where there are options; empty for the same."""
    answer: str = "{answer}"
    letter: str = ""
    """As `answer`, where it is the letter of an option; empty for the same."""
    option: str = "{letter}. {text}"
    hint: str = "Hint: {hint}\n"
    """Template of a hint, for questions that have one."""
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


def question_sample(question: Question, template: PromptTemplate, form: PromptForm, name: str) -> Sample:
    """The question as a Sample whose last text is the answer, to be learned; `prompt_of` cuts it off.

    Raises: Refused for more options than letters, or images that the text marks and that are not there.
    """
    if len(question.options) > len(ascii_uppercase):
        raise Refused("too many options", f"{len(question.options)}, more than there are letters")
    if template.change:
        question = template.change(question)
    lettered = bool(question.options)
    shown = question.shown or next(iter(question.answers), "")
    request = tuple(_request(question, template.request(question)))
    space = "" if form == "chat" else " "
    reply = Text(space + template.reply(shown, lettered), supervised=True)
    letters = ascii_uppercase[: len(question.options)]
    meta = {
        "name": name,
        "id": question.id,
        "answers": question.answers,
        "options": question.options,
        "candidates": tuple(space + template.reply(letter, True) for letter in letters),
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


PHRASE_ONLY = "Answer the question using a single word or phrase."
LETTER_ONLY = "Answer with the option's letter from the given choices directly."
"""Sentences of LLaVA's that both harnesses ask with."""

BRIEF_ANSWER = PromptTemplate(f"{{question}}\n{VERY_BRIEF}")
WORD_OR_PHRASE = PromptTemplate(f"{{question}}\n{PHRASE_ONLY}")
SHORT_ANSWER: Mapping[Variant, PromptTemplate] = {
    "paper": BRIEF_ANSWER,
    "lmms-eval": WORD_OR_PHRASE,
    "vlmevalkit": WORD_OR_PHRASE,
}
"""Questions with a short answer."""

LETTER_TAUGHT = PromptTemplate(
    f"Question: {{question}}\n{{hint}}Choices:\n{{options}}\n{WITH_LETTER}", letter="Answer: {answer}"
)
"""As The Cauldron asks multiple-choice questions: the answer taught is `Answer: B`."""
LETTER_DIRECTLY = PromptTemplate(f"{{question}}\n{{options}}\n{LETTER_ONLY}")
LETTER_ABOVE = PromptTemplate(
    "{hint}Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above."
)
CHOICE: Mapping[Variant, PromptTemplate] = {
    "paper": LETTER_TAUGHT,
    "lmms-eval": LETTER_DIRECTLY,
    "vlmevalkit": LETTER_ABOVE,
}
"""Multiple choice."""

QUESTION_BASE = PromptTemplate(
    "Question: {question} Answer:",
    instruction="Instruction: provide an answer to the question. Use the image to answer.\n",
)
CHOICE_BASE = PromptTemplate(
    "Question: {question}\n{hint}Choices:\n{options}\nAnswer:",
    instruction="Instruction: answer the question with the letter of a choice. Use the image to answer.\n",
)
OPEN_OR_CHOICE_BASE = replace(CHOICE_BASE, ask=QUESTION_BASE.ask, choices=CHOICE_BASE.ask)
"""Benchmarks with both kinds of questions."""
CAPTION_BASE = PromptTemplate("Caption:", instruction="Instruction: provide a short caption of the image.\n")

CAPTION_PROMPTS: Mapping[Variant, PromptTemplate] = {
    "paper": PromptTemplate("Provide a brief description of the given image."),
    "lmms-eval": PromptTemplate("Provide a one-sentence caption for the provided image."),
    "vlmevalkit": PromptTemplate(
        "Please describe this image in general. Directly provide the description, do not include prefix like"
        ' "This image depicts".'
    ),
}

OKVQA_PROMPTS: Mapping[Variant, PromptTemplate] = {
    **SHORT_ANSWER,
    "lmms-eval": PromptTemplate(
        f"{{question}}\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{PHRASE_ONLY}"
    ),
}


def _capitalised(question: Question) -> Question:
    """The question as lmms-eval writes it: the first letter large, all others small, whatever they name."""
    return replace(question, text=question.text.capitalize())


TEXTVQA_PROMPTS: Mapping[Variant, PromptTemplate] = {
    **SHORT_ANSWER,
    "lmms-eval": replace(WORD_OR_PHRASE, change=_capitalised),
}

MMBENCH_PROMPTS: Mapping[Variant, PromptTemplate] = {
    **CHOICE,
    "paper": replace(LETTER_TAUGHT, ask=LETTER_TAUGHT.ask.replace("the letter", "a letter")),
    "lmms-eval": PromptTemplate(
        f"{{hint}}{{question}} There are several options:\n{{options}}\n{LETTER_ONLY}", hint="{hint} "
    ),
}

MMMU_PROMPTS: Mapping[Variant, PromptTemplate] = {
    "paper": PromptTemplate("Question: {question}", choices=LETTER_TAUGHT.ask, letter=LETTER_TAUGHT.letter),
    "lmms-eval": PromptTemplate(
        f"{{question}}\n\n{PHRASE_ONLY}", choices=f"{{question}}\n{{options}}\n\n{LETTER_ONLY}"
    ),
    "vlmevalkit": PromptTemplate("Question: {question}", choices=LETTER_ABOVE.ask),
}

MATHVISTA_NOTES = {
    "letter": LETTER_ONLY,
    "integer": "Answer the question using a single integer number.",
    "float:1": "Answer the question using a single floating-point number with one decimal place.",
    "float:2": "Answer the question using a single floating-point number with two decimal places.",
    "list": "Answer the question using a Python list.",
}
"""lmms-eval's sentence for each kind of answer."""


def _as_taught(question: Question) -> Question:
    """MathVista's own wording, brought to The Cauldron's: no `Hint: `, and `A. ` for `(A) `."""
    query = re.sub(r"\(([A-H])\) ", r"\1. ", question.query).replace("Hint: ", "")
    return replace(question, query=query)


MATHVISTA_PROMPTS: Mapping[Variant, PromptTemplate] = {
    "paper": PromptTemplate(
        "{query}", choices=f"{{query}}\n{WITH_LETTER}", letter=LETTER_TAUGHT.letter, change=_as_taught
    ),
    "lmms-eval": PromptTemplate("{question}\n{note}", choices="{question}\n{options}\n{note}"),
    "vlmevalkit": PromptTemplate("{query}"),
}

JUDGE_PROMPT = """\
Below are a question and a response to it. Write the final answer that the response gives, and nothing else: the letter
of a choice, a number, or a list. Write "none" if it gives none.

Question: {question}

Response: {answer}

Final answer:"""
"""Asks a judge for the final answer in a text (`judge.py`)."""
