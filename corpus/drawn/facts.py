"""Facts about the things that drawings show: knowledge that cannot be seen in the picture.

`facts.txt` is a table of properties, `countries.tsv` one of the countries whose flags are drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from corpus.drawn.labels import a, be, sentence, the

FACTS = Path(__file__).with_name("facts.txt")
COUNTRIES = Path(__file__).with_name("countries.tsv")
_CAPITAL = (
    "capital",
    "What is the capital of the country whose flag this is?",
    "{answer} is the capital of {country}.",
)
_CONTINENT = (
    "continent",
    "On which continent does the country of this flag lie?",
    "{country} {lie} in {answer}.",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of a noun."""

    kind: str
    """Property that the fact gives, such as `legs` or `capital`."""
    question: str
    """Asked about a picture of the thing, which it does not name."""
    answers: tuple[str, ...]
    """The answer, and other ways to say it."""
    statement: str
    """The same as a sentence, which names the thing."""

    @property
    def answer(self) -> str:
        return self.answers[0]


@cache
def facts() -> dict[str, tuple[Fact, ...]]:
    """All facts of each noun."""
    found: dict[str, list[Fact]] = {}
    for noun, fact in (*_properties(), *_flags()):
        found.setdefault(noun, []).append(fact)
    return {noun: tuple(known) for noun, known in found.items()}


def _properties() -> Iterator[tuple[str, Fact]]:
    name = question = statement = ""
    for line in FACTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            name, question, statement = line.split("|")
            continue
        answers, _, nouns = line.strip().partition(": ")
        for noun in nouns.split(", "):
            said = answers.split("/")
            in_words = said[1] if said[0].isdigit() else said[0]
            yield noun, Fact(name, question, tuple(said), _stated(statement, noun, in_words))


def _stated(pattern: str, noun: str, answer: str) -> str:
    said = pattern.partition("//")[2 if answer == "no" else 0]
    things = {"a": a(noun), "A": a(noun), "The": the(noun), "noun": noun, "place": noun.removeprefix("map of ")}
    things |= {"answer": answer, "an_answer": a(answer), "is": be(noun), "s": "" if be(noun) == "are" else "s"}
    return sentence(said.format(**things))


def _flags() -> Iterator[tuple[str, Fact]]:
    with open(COUNTRIES, encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            country = row["country"]
            for name, question, statement in (_CAPITAL, _CONTINENT):
                if row[name]:
                    lie = "lie" if country.startswith("the ") and country.endswith("s") else "lies"
                    said = sentence(statement.format(answer=row[name], country=country, lie=lie))
                    yield f"flag of {country}", Fact(name, question, (row[name],), said)


def known(noun: str) -> tuple[Fact, ...]:
    """Facts about a thing; most things have none."""
    return facts().get(noun, ())
