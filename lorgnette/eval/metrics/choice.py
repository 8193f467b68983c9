"""Multiple choice: which option does a free answer name? And accuracy over the passes of a circular evaluation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from string import ascii_uppercase

from lorgnette.eval.metrics.exact import normalise
from lorgnette.eval.metrics.metric import Truth

_SAID = re.compile(r"(?:answer\s*(?:is|:|=)?|(?:option|choice)\s*(?:is|:|=))\W{0,4}([A-Za-z])(?![\w'])", re.IGNORECASE)
"""`Answer: B`, `the correct option is (B)`."""
_ALONE = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")
_BARE = re.compile(r"\W*([A-Za-z])\W*")
MOST_WORDS = 3
"""In an answer of more words than this, an `A` is taken for an article."""


def choose(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer names, or None if it names none, or several.

    In this order: a letter by itself; the last one behind a word such as `answer`; the only letter that stands alone;
    the only option whose text is in the answer (options that are part of another one found do not count).
    """
    letters = ascii_uppercase[: len(options)]
    bare = _BARE.fullmatch(answer)
    if bare:
        return bare[1].upper() if bare[1].upper() in letters else None
    said = [letter.upper() for letter in _SAID.findall(answer) if letter.upper() in letters]
    if said and (said[-1] != "A" or "A" in _ALONE.findall(answer)):
        return said[-1]
    alone = {letter for letter in _ALONE.findall(answer) if letter in letters}
    if len(answer.split()) > MOST_WORDS:
        alone -= {"A"}
    if alone:
        return alone.pop() if len(alone) == 1 else None
    return _by_text(answer, options)


def _by_text(answer: str, options: Sequence[str]) -> str | None:
    given, texts = normalise(answer), [normalise(option) for option in options]
    if given in texts:
        return ascii_uppercase[texts.index(given)] if texts.count(given) == 1 else None
    found = {text for text in texts if text and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", given)}
    found = {text for text in found if not any(text != other and text in other for other in found)}
    only = found.pop() if len(found) == 1 else ""
    return ascii_uppercase[texts.index(only)] if only and texts.count(only) == 1 else None


def choice_accuracy(answer: str, references: Sequence[str], options: Sequence[str]) -> float:
    """1 if the answer names a reference's letter; without options, if it equals a reference (see `exact_match`)."""
    if not options:
        return float(normalise(answer) in map(normalise, references))
    return float(choose(answer, options) in references)


def circular_counts(answers: Sequence[str], truths: Sequence[Truth]) -> list[tuple[float, float]]:
    """Counts whose mean is the share of groups with all their passes right (MMBench, Liu et al. 2023, §4.3).

    A question that belongs to no group is one by itself. Each pass carries its part of the group, so that sums over
    some of the examples, as a bootstrap makes them, still weigh every group the same.
    """
    groups = [truth.group or number for number, truth in enumerate(truths)]
    right: dict[str | int, bool] = defaultdict(lambda: True)
    for answer, truth, group in zip(answers, truths, groups, strict=True):
        right[group] &= bool(choice_accuracy(answer, truth.answers, truth.options))
    passes = Counter(groups)
    return [(right[group] / passes[group], 1 / passes[group]) for group in groups]
