"""Edit distance, and what is made of it: ANLS for short answers, error rates for transcriptions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of items.

    Bit-parallel (Myers 1999, Hyyrö 2003): a column of the table is two integers, one bit per item, that say where it
    goes up or down by one. Texts of ten thousand characters take a fraction of a second.
    """
    if not first:
        return len(second)
    places: dict[Hashable, int] = {}
    for place, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << place
    distance, last, mask = len(first), 1 << (len(first) - 1), (1 << len(first)) - 1
    up, down = mask, 0
    for item in second:
        equal = places.get(item, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up, right_down = down | ~(diagonal | up) & mask, diagonal & up
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1 | 1) & mask, right_down << 1 & mask
        up, down = right_down | ~(diagonal | right_up) & mask, right_up & diagonal
    return distance


def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Normalised Levenshtein similarity to the nearest reference (Biten et al. 2019); 0 if below `threshold`.

    As in the code of the benchmark's server, which lmms-eval uses too: case and runs of white space do not count in the
    distance, but surplus white space counts in the length that it is divided by. A similarity equal to the threshold
    stays, where the paper's formula makes it 0.
    """
    return _similarity(answer, references, threshold, lambda text: len(text.upper()))


def anls_normalised(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """ANLS divided by the length of the texts that are compared, without surplus white space, as in VLMEvalKit."""
    return _similarity(answer, references, threshold, lambda text: len(_plain(text)))


def _similarity(answer: str, references: Sequence[str], threshold: float, length: Callable[[str], int]) -> float:
    best = 0.0
    for reference in references:
        longest = max(length(answer), length(reference))
        distance = edit_distance(_plain(answer), _plain(reference))
        best = max(best, 1 - distance / longest if longest else 1.0)
    return best if best >= threshold else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def character_errors(answer: str, references: Sequence[str]) -> tuple[int, int]:
    """(edits, characters of the reference) for the reference with the lowest rate. White space is one space."""
    answer = " ".join(answer.split())
    return _fewest(answer, [" ".join(reference.split()) for reference in references])


def word_errors(answer: str, references: Sequence[str]) -> tuple[int, int]:
    """(edits, words of the reference) for the reference with the lowest rate. Case and punctuation count."""
    return _fewest(answer.split(), [reference.split() for reference in references])


def _fewest(answer: Sequence[Hashable], references: Sequence[Sequence[Hashable]]) -> tuple[int, int]:
    errors = [(edit_distance(answer, reference), len(reference)) for reference in references]
    return min(errors, key=lambda pair: (pair[0] / max(pair[1], 1), pair), default=(len(answer), 0))
