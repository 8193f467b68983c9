"""Facts about things: questions that do not name them, statements that do, and several answers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from corpus.drawn.facts import COUNTRIES, facts, known
from corpus.drawn.labels import labels

NOUNS = sorted({label.noun for label in labels().values()})


def test_facts_are_of_nouns_and_properties_have_several_answers():
    assert set(facts()) <= set(NOUNS) | {f"flag of {name}" for name in _countries()}
    answers = defaultdict(set)
    for noun in NOUNS:
        for fact in known(noun):
            answers[fact.kind].add(fact.answer)
    single = [kind for kind, said in answers.items() if len(said) < 2]
    assert single == [], "a question with one answer asks for nothing"


def test_no_question_names_the_thing_and_every_statement_does():
    for noun in NOUNS:
        for fact in known(noun):
            assert noun not in fact.question.lower().split()
            named = noun.removeprefix("flag of ").removeprefix("map of ").lower()
            assert named in fact.statement.lower(), fact.statement
            assert re.fullmatch(r"[A-Z].*\.", fact.statement) and "{" not in fact.statement + fact.question


def test_a_property_has_one_answer_for_a_noun():
    for noun in NOUNS:
        kinds = Counter(fact.kind for fact in known(noun))
        assert [kind for kind, count in kinds.items() if count > 1] == [], noun


def _countries() -> list[str]:
    with open(COUNTRIES, encoding="utf-8") as lines:
        return [line.split("\t")[0] for line in list(lines)[1:]]
