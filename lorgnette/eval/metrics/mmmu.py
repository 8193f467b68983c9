"""MMMU's answer parser (Yue et al. 2024): which option, or which value, does a free answer name?

Where nothing is named the official code draws an option at random; here such an answer is simply wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

_MARKS = ",.!?;:'"
_KEYWORDS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


def mmmu_accuracy(answer: str, references: Sequence[str], options: Sequence[str] = ()) -> float:
    """1 if the answer names the right letter (with options) or a right value (without), else 0."""
    if options:
        return float(parse_choice(answer, options) in references)
    return float(open_matches(answer, references))


def parse_choice(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option named last: as `(B)`, else as ` B `, else, in a long answer, by its text."""
    for mark in _MARKS:
        answer = answer.strip(mark)
    answer = f" {answer} "
    letters = ascii_uppercase[: len(options)]

    def last(form: Callable[[int], str], text: str) -> str | None:
        found = [(text.rfind(form(index)), -index) for index in range(len(letters)) if form(index) in text]
        return letters[-max(found)[1]] if found else None

    named = last(lambda index: f"({letters[index]})", answer) or last(lambda index: f" {letters[index]} ", answer)
    if named or len(answer.split()) <= 5:
        return named
    return last(lambda index: options[index].lower(), answer.lower())


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
