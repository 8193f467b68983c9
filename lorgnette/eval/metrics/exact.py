"""Exact match, after a light normalisation that forgives what does not change the meaning of a short answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, single spaces, without surrounding punctuation and a leading article."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = text.strip().strip(".,;:!?\"'`").split()
    if len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words)


def exact_match(answer: str, references: Iterable[str]) -> float:
    """1 if the answer equals any of the references after normalisation, else 0."""
    return float(normalise(answer) in {normalise(reference) for reference in references})
