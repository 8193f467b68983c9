"""VQA accuracy: an answer is right to the degree that people gave it too, after the official normalisation.

`vqa_accuracy` is the official code since its correction of 2021 (GT-Vision-Lab/VQA, a013f00), `vqa_accuracy_normalised`
the rule of lmms-eval and VLMEvalKit, `textvqa_accuracy` that of TextVQA. The quirks of normalisation are kept, because
published numbers contain them: a punctuation rule that depends on the whole text, and periods that go unless a digit
follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER_WORDS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"} | {
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

# Contractions that are mended where one of their apostrophes is missing. Those with "I" are in the official table too,
# but never apply: words are in lower case when they are looked up.
_MENDED = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've 'ow's'at
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


CONTRACTIONS = {broken: whole for whole in _MENDED.split() for broken in _without_one_apostrophe(whole)}
CONTRACTIONS["somebody'd"] = "somebodyd"  # as published

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def strip_punctuation(text: str) -> str:
    """The official rule: a mark that touches a space anywhere is deleted everywhere, any other becomes a space.

    In a text with a comma inside a number all marks are deleted. At most 32 periods are (a flag passed as a count).
    """
    delete_all = _COMMA_IN_NUMBER.search(text)
    cleaned = text
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if touches_space or delete_all else " ")
    return _PERIOD.sub("", cleaned, count=32)


def normalise_words(text: str) -> str:
    """Lower case, digits for the words up to ten, no articles, contractions mended."""
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """VQAv2 accuracy (Goyal et al. 2017): the mean over references of min(1, equal other references / 3).

    As in the official code, answer and references are normalised alike, but only where the references differ: where all
    of them are the same text, the answer must be that text, capital letters and punctuation included.
    """
    references = [_one_line(reference) for reference in references]
    if len(set(references)) > 1:
        return leave_one_out(_normalise_vqa(answer), [_normalise_vqa(reference) for reference in references])
    return leave_one_out(_one_line(answer), references)


def vqa_accuracy_normalised(answer: str, references: Sequence[str]) -> float:
    """VQA accuracy with both sides always normalised, as lmms-eval and VLMEvalKit compute it."""
    return leave_one_out(_normalise_vqa(answer), [_normalise_vqa(reference) for reference in references])


def textvqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """TextVQA accuracy (Singh et al. 2019): both sides are always normalised, and a bit more."""
    return leave_one_out(_normalise_textvqa(answer), [_normalise_textvqa(reference) for reference in references])


def _normalise_textvqa(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _normalise_vqa(text)


def _normalise_vqa(text: str) -> str:
    return normalise_words(strip_punctuation(_one_line(text)))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def leave_one_out(answer: str, references: Sequence[str]) -> float:
    """Each reference is left out once; an answer that three of the others gave is right. 0 without references."""
    equal = sum(reference == answer for reference in references)
    others = [equal - (reference == answer) for reference in references]
    return sum(min(1.0, count / 3) for count in others) / max(1, len(references))
