"""The many ways to ask for the same thing, and to answer: in a word where one is asked for, else in a sentence."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpus.drawn.captions import WITHOUT_ARTICLE, with_article
from corpus.drawn.labels import sentence
from corpus.drawn.questions import phrase

BRIEF = (
    "Answer briefly.",
    "Answer in a word or two.",
    "Give a short answer.",
    "Be brief.",
    "Short answer, please.",
    "Reply with a word.",
    "Just the answer.",
    "Keep the answer short.",
)
"""Requests for a short answer, appended to a question."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Wording:
    """`asked`: questions; `said`: answers in a sentence. Both have places to fill."""

    asked: tuple[str, ...]
    said: tuple[str, ...]


OF_FORMS: dict[str, Wording] = {
    "category of one": Wording(
        (
            "What kind of thing is this?",
            "What does this drawing show?",
            "Which category does this drawing belong to?",
            "What sort of thing is drawn here?",
        ),
        ("This is {thing}.", "It shows {thing}.", "The drawing shows {thing}.", "What is drawn here is {thing}."),
    ),
    "category by colour": Wording(
        (
            "What kind of thing is the {colour} drawing?",
            "What does the {colour} drawing show?",
            "One of the drawings is {colour}. What kind of thing is it?",
        ),
        ("The {colour} drawing is {thing}.", "It is {thing}.", "The {colour} one shows {thing}."),
    ),
    "category by place": Wording(
        (
            "What kind of thing is {place}?",
            "What sort of thing do you see {place}?",
            "Look {place}: what kind of thing is there?",
        ),
        ("{Place} there is {thing}.", "The drawing {place} shows {thing}.", "It is {thing}."),
    ),
    "colour of one": Wording(
        (
            "What colour is this drawing?",
            "What is the main colour of this drawing?",
            "Which colour has this drawing?",
            "Name the colour of what you see.",
        ),
        ("It is {answer}.", "The drawing is {answer}.", "Its main colour is {answer}."),
    ),
    "colour by place": Wording(
        (
            "What colour is the drawing {place}?",
            "Which colour has the drawing {place}?",
            "What is the main colour of what you see {place}?",
        ),
        ("The drawing {place} is {answer}.", "It is {answer}.", "{Place} you see something {answer}."),
    ),
    "colour by category": Wording(
        ("What colour is the {category}?", "Which colour has the {category}?", "Tell me the colour of the {category}."),
        ("The {category} is {answer}.", "It is {answer}.", "Its colour is {answer}."),
    ),
    "count of all": Wording(
        (
            "How many drawings are there?",
            "How many drawings do you see?",
            "Count the drawings.",
            "How many things are in the picture?",
        ),
        ("{There} {number} {drawing}.", "I count {number} {drawing}.", "The picture has {number} {drawing}."),
    ),
    "count of colour": Wording(
        (
            "How many {colour} drawings are there?",
            "How many of the drawings are {colour}?",
            "Count the {colour} drawings.",
        ),
        ("{There} {number} {colour} {drawing}.", "I count {number} {colour} {drawing}."),
    ),
    "where": Wording(
        (
            "Where is the {colour} drawing?",
            "Where do you see the {colour} drawing?",
            "In which part of the picture is the {colour} drawing?",
        ),
        ("The {colour} drawing is {at}.", "It is {at}.", "You find it {at}."),
    ),
    "side by side": Wording(
        (
            "Is the {colour} drawing left or right of the {other} one?",
            "On which side of the {other} drawing is the {colour} one, left or right?",
        ),
        ("It is to the {answer} of it.", "The {colour} drawing is to the {answer} of the {other} one."),
    ),
    "one above other": Wording(
        (
            "Is the {colour} drawing above or below the {other} one?",
            "Which is it: is the {colour} drawing above the {other} one, or below it?",
        ),
        ("It is {answer} it.", "The {colour} drawing is {answer} the {other} one."),
    ),
    "related categories": Wording(
        ("Is the {category} {relation} the {other}?", "Would you say that the {category} is {relation} the {other}?"),
        ("{Yes}, the {category} is {not}{relation} the {other}.",),
    ),
}
"""Wordings of each form of `questions.FORMS`."""


def asked(
    rng: random.Random, wording: Wording, filled: Mapping[str, str], answer: str, source: str, brief: float = 0.5
) -> dict[str, str]:
    """A question and its answer, as a row of instructions holds them. brief: how often the answer is but a word."""
    places = {**filled, **_forms_of(filled, answer)}
    question = rng.choice(wording.asked).format(**places)
    if rng.random() < brief:
        if rng.random() < 0.7:
            question = f"{question} {rng.choice(BRIEF)}"
        return text(question, answer, source)
    said = rng.choice(wording.said).format(**places)
    return text(question, said, source)


def text(question: str, answer: str, source: str) -> dict[str, str]:
    """The row's own form: an answer starts with a capital and ends with a full stop."""
    return {"user": question, "assistant": sentence(answer), "source": source}


def _forms_of(filled: Mapping[str, str], answer: str) -> dict[str, Any]:
    """The answer in the forms that sentences need."""
    forms: dict[str, Any] = {"answer": answer, "thing": thing(answer), "at": phrase(answer)}
    forms["Yes"], forms["not"] = ("Yes", "") if answer == "yes" else ("No", "not ")
    if answer.isdigit():
        one = answer == "1"
        forms |= {"number": NUMBERS[int(answer)], "drawing": "drawing" if one else "drawings"}
        forms["There"] = "There is" if one else "There are"
    if "place" in filled:
        forms["Place"] = filled["place"].capitalize()
    return forms


def thing(category: str) -> str:
    """A category with its article: "an animal", "food"."""
    return category if category in WITHOUT_ARTICLE else with_article(category, category)
