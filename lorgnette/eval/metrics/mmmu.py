"""MMMU's answer parsers (Yue et al. 2024): the option, or the value, that a free answer names.

Three codes read options, and differ: the official one, lmms-eval's and VLMEvalKit's. Where they find nothing they draw
an option at random, or ask a language model; here `choose` reads such an answer, so that a score is no matter of luck.
What they read wrongly is kept, because published numbers contain it: of `C. A pretty girl` the first two read A.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

from lorgnette.eval.metrics.choice import choose

Parse = Callable[[str, Sequence[str]], str | None]
"""From an answer and the options to the letter that it names, or None."""

_MARKS = ",.!?;:'"
_KEYWORDS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SPACED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Failed to obtain answer via API",
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def mmmu_accuracy(
    answer: str, references: Sequence[str], options: Sequence[str] = (), parse: Parse | None = None
) -> float:
    """1 if the answer names the right letter (with options) or a right value (without), else 0.

    parse: reads the letter out of an answer; None for the official code's `parse_choice`.
    """
    if options:
        return float((parse or parse_choice)(answer, options) in references)
    return float(open_matches(answer, references))


def parse_choice(answer: str, options: Sequence[str]) -> str | None:
    """The letter that the official code reads; where it would draw one at random, what `choose` reads."""
    return official_choice(answer, options) or choose(answer, options)


def parse_choice_lmms_eval(answer: str, options: Sequence[str]) -> str | None:
    """The letter that lmms-eval 0.7.3 reads; where it would draw one at random, what `choose` reads."""
    return lmms_eval_choice(answer, options) or choose(answer, options)


def parse_choice_vlmevalkit(answer: str, options: Sequence[str]) -> str | None:
    """The letter that VLMEvalKit's rules read; where it would ask a language model, what `choose` reads."""
    return vlmevalkit_choice(answer, options) or choose(answer, options)


def official_choice(answer: str, options: Sequence[str]) -> str | None:
    """The letter named last: as `(B)`, else as ` B `, else, in a long answer, the option whose text is last."""
    answer, letters = _padded(answer), ascii_uppercase[: len(options)]
    for form in ("({})", " {} "):
        found = [letter for letter in letters if form.format(letter) in answer]
        if found:
            return _last(found, answer, form)
    return _last_text(answer, options)


def lmms_eval_choice(answer: str, options: Sequence[str]) -> str | None:
    """As `official_choice`, but a letter counts before any space, as in `Answer:B `, and then before a full stop.

    Of several letters the last that stands between spaces is taken, else the first option's, as there.
    """
    answer, letters = _padded(answer), ascii_uppercase[: len(options)]
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in letters if form.format(letter) in answer]
        if found:
            return _last(found, answer, place)
    return _last_text(answer, options)


def vlmevalkit_choice(answer: str, options: Sequence[str]) -> str | None:
    """The only letter that is a word, if among the last five; else the only option whose text is in the answer."""
    letters = ascii_uppercase[: len(options)]
    if any(refusal in answer for refusal in _REFUSALS):
        return None
    words = answer.translate(_SPACED).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1 and words.index(found[0]) > len(words) - 5:
        return found[0]
    if not found and "Z" in words:  # the letter by which a language model says that no option fits
        return None
    texts = [option.lower() for option in options]
    if len(answer) > 2 * sum(map(len, texts)):
        return None
    within = [letter for letter, text in zip(letters, texts, strict=False) if text in answer.lower()]
    return within[0] if len(within) == 1 else None


def _padded(answer: str) -> str:
    for mark in _MARKS:
        answer = answer.strip(mark)
    return f" {answer} "


def _last(found: Sequence[str], answer: str, form: str) -> str:
    """Of the letters found the one that stands last in this form, the first of equals."""
    return max(found, key=lambda letter: answer.rfind(form.format(letter)))


def _last_text(answer: str, options: Sequence[str]) -> str | None:
    if len(answer.split()) <= 5:
        return None
    answer = answer.lower()
    places = [answer.rfind(option.lower()) for option in options]
    return ascii_uppercase[places.index(max(places))] if max(places, default=-1) >= 0 else None


def open_matches(answer: str, references: Sequence[str]) -> bool:
    """Does the answer contain a reference's text, or a number equal to it after rounding to two places?"""
    wanted = {value for reference in references for value in _values(reference)}
    parts = _key_parts(answer)
    parts += [number for part in parts for pattern in _NUMBERS for number in pattern.findall(part)]
    given = {value for part in parts for value in _values(part)}
    texts = [value for value in given if isinstance(value, str)]
    return any(value in given if isinstance(value, float) else any(value in text for text in texts) for value in wanted)


def _key_parts(answer: str) -> list[str]:
    """For each line the shortest text after a keyword such as `is `; in the last line `=` is one. Else the whole."""
    answer = answer.strip().strip(".").lower()
    *lines, final = answer.split("\n")
    parts = []
    for line, keywords in [*((line, _KEYWORDS) for line in lines), (final, (*_KEYWORDS, "="))]:
        shortest = ""
        for keyword in keywords:
            tail = line.split(keyword)[-1].strip()
            if keyword in line and (not shortest or len(tail) < len(shortest)):
                shortest = tail  # an empty tail is replaced by the next one, as published
        if shortest and shortest not in tuple(_MARKS):
            parts.append(shortest)
    return parts or [answer]


def _values(text: str) -> list[str | float]:
    """A number rounded to two places, or the text in lower case; a single letter with a space beside it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
