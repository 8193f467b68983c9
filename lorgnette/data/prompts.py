"""Prompt templates of training: a known request is replaced by one of the ways to word it, drawn for each sample.

A request is known by its words: all of a question, or its last sentence. Questions in other words stay as they are.
Sentences that benchmarks ask with too are constants here, and `eval/benchmark_prompts.py` imports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lorgnette.data.plan.augment import hashed
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.sample import Sample, Segment, Text, Turn

VERY_BRIEF = "Give a very brief answer."
"""Asks for a short answer, as the authors of Idefics2 did on benchmarks; no other wording of it is drawn."""
WITH_LETTER = "Answer with the letter."
"""Asks for the letter of a choice, as The Cauldron does."""

REQUESTS: dict[str, tuple[str, ...]] = {
    "describe": (
        "Describe the image.",
        "Describe this image.",
        "Describe the picture.",
        "Describe what you see.",
        "What does the image show?",
        "What is shown in this image?",
        "What can you see in this picture?",
        "Tell me what is in the picture.",
        "Give a description of this image.",
        "Please describe the image for me.",
        "Explain what can be seen in this image.",
    ),
    "describe in detail": (
        "Describe the image in detail.",
        "Describe this picture in detail.",
        "Give a detailed description of the image.",
        "Tell me everything that you see in this image.",
        "Describe the image as fully as you can.",
        "What is in this image? Be thorough.",
    ),
    "caption": (
        "Give a caption for this image.",
        "Write a caption for the image.",
        "Caption this image.",
        "Describe the image in one sentence.",
        "Describe the picture in a single sentence.",
        "Sum up the image in a sentence.",
        "What is a good caption for this picture?",
    ),
    "transcribe": (
        "Transcribe the text.",
        "Transcribe the text in the image.",
        "Transcribe this page.",
        "Read the text.",
        "Read out the text in the image.",
        "What is written here?",
        "What does the text say?",
        "Write down the text of this image.",
        "Please copy out the text that you see.",
    ),
}
"""Task -> ways to ask for it, each a whole request."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "briefly": (
        "Answer briefly.",
        "Be brief.",
        "Be short.",
        "Keep it short.",
        "Keep the answer short.",
        "Just the answer.",
        "Only the answer, please.",
        "Short answer, please.",
        "A short answer will do.",
        "Give a short answer.",
        "Reply with a word.",
        "Reply in a few words.",
        "Answer in a word or two.",
        "Answer with a word or a short phrase.",
    ),
    "in steps": (
        "Show your steps.",
        "Write out the steps.",
        "Explain your answer.",
        "Explain how you find it.",
        "Work it out step by step.",
        "Show how you come to the answer.",
    ),
    "by letter": (
        WITH_LETTER,
        "Reply with the letter alone.",
        "Give the letter of the right choice.",
        "Which letter is right?",
        "Answer with the letter of the choice.",
    ),
    "yes or no": (
        "Yes or no?",
        "Answer yes or no.",
        "Answer with yes or no.",
        "Reply with yes or no alone.",
    ),
}
"""Kind of answer -> ways to ask for it, as the last sentence of a question."""


def _others(groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {wording.casefold(): wordings for wordings in groups.values() for wording in wordings}


WAYS_TO_ASK, WAYS_TO_END = _others(REQUESTS), _others(ENDINGS)
"""A wording in lower case -> all wordings of its meaning."""


def reworded(sample: Sample, tokenizer: Tokenizer, seed: int) -> Sample:
    """A conversation with each known request of its user in a wording drawn from (seed, number of the text).

    No wording is drawn that has more tokens than the request itself, so that the sample keeps its place in its pack.
    """
    segments: list[Segment] = []
    role = ""
    for number, segment in enumerate(sample.segments):
        if isinstance(segment, Turn):
            role = segment.role
        if isinstance(segment, Text) and role == "user":
            segment = replace(segment, text=_reworded(segment.text, tokenizer, int(hashed(seed, number)[0])))
        segments.append(segment)
    return replace(sample, segments=tuple(segments))


def _reworded(text: str, tokenizer: Tokenizer, draw: int) -> str:
    start, wordings = _request(text)
    edge, end = max(start - 1, 0), len(text.rstrip())  # what is before the request's own space costs the same in all
    tokens = [
        len(tokenizer.encode(text[edge:start] + request, first=False)) for request in (text[start:end], *wordings)
    ]
    fitting = [wording for wording, count in zip(wordings, tokens[1:], strict=True) if count <= tokens[0]]
    return text[:start] + fitting[draw % len(fitting)] + text[end:] if fitting else text


def _request(text: str) -> tuple[int, Sequence[str]]:
    """Find a known request at the end of a text: its first character, and all its templates; none if there is none."""
    whole = text.strip()
    before = len(text) - len(text.lstrip())
    if whole.casefold() in WAYS_TO_ASK:
        return before, WAYS_TO_ASK[whole.casefold()]
    for start in _sentences(whole):
        if whole[start:].casefold() in WAYS_TO_END:
            return before + start, WAYS_TO_END[whole[start:].casefold()]
    return len(text), ()


def _sentences(text: str) -> list[int]:
    """Starts of all sentences but the first: after a space that follows a full stop or the like."""
    spaces = [at for at in range(1, len(text)) if text[at].isspace()]
    return [at + 1 for at in spaces if text[at] == "\n" or text[at - 1] in ".?!:)"]
