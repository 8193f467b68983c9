"""`Task`: a benchmark as a value. It holds samples with their reference answers and says how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lorgnette.errors import DataError
from lorgnette.eval.metrics.metric import Reference
from lorgnette.sample import Image, ImageSource, Sample, Text, Turn


class Shots(Protocol):
    """Settings of the examples before each question: see `lorgnette.eval.fewshot`."""

    def before(self, prompts: Sequence[Sample]) -> list[Sample]:
        """Each prompt with its examples before it. What stands beside a prompt in the list changes nothing."""
        ...

    def described(self) -> dict[str, Any]:
        """All that decides which examples are shown, as stored beside the answers."""
        ...


@dataclass(frozen=True)
class Task:
    """A benchmark. `meta` of each sample holds the reference: `answer` or `answers`, and maybe `kind` (counted by kind,
    and `Business/Finance` in `Business` too), `options`, `candidates` (what to score by likelihood, if other texts than
    the options), `form` and `group` (see `Reference`).

    Samples may be those of training: what they would teach is cut off before a model sees them (see `prompt_of`). A
    sample that cannot be read raises `Refused`; it is named in the results and not scored.
    """

    name: str
    samples: Sequence[Sample]
    metric: str = "exact_match"
    """A name in `lorgnette.eval.metrics.METRICS`."""
    split: str = "test"
    splits: tuple[str, ...] = ("train", "validation", "test")
    licence: str = ""
    expected_size: int | None = None
    """Number of samples in the whole split; any other number is an error, so that no score hides missing rows."""
    prompt: str = "{question}"
    """Wording of a question, for the record: a change of wording is a change of settings."""
    answer_by: Literal["generation", "likelihood"] = "generation"
    """`likelihood` chooses the most likely of the sample's `options`."""
    max_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)
    version: int = 1
    form: Literal["chat", "base"] = "chat"
    variant: str = ""
    """Whose wording this is: `paper`, `lmms-eval`, `vlmevalkit`; empty where there is one only."""
    shots: Shots | None = None
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Plug-ins that it depends on, by name: the package and version of each, as stored beside the answers."""
    groups: Sequence[Hashable] | None = None
    """The group of each sample, where several are judged as one: a limit never takes a part of a group."""


def prompt_of(sample: Sample) -> Sample:
    """The sample without what it would teach: supervised text at its end is cut, and the assistant's turn with it."""
    segments = list(sample.segments)
    while segments and isinstance(segments[-1], Text) and segments[-1].supervised:
        segments.pop()
    if segments and segments[-1] == Turn("assistant"):
        segments.pop()
    return Sample(tuple(segments), sample.meta)


def truth_of(sample: Sample) -> Reference:
    """The reference in a sample's `meta`. Raises DataError naming a sample that has none."""
    meta = sample.meta
    answers = meta["answers"] if "answers" in meta else [meta["answer"]] if "answer" in meta else None
    if answers is None:
        raise DataError(f"{sample.name}: nothing to score against; put `answer` or `answers` in its meta")
    options = tuple(map(str, meta.get("options", ())))
    return Reference(tuple(map(str, answers)), options, str(meta.get("form", "")), str(meta.get("group", "")))


def transcript(sample: Sample, digest: Callable[[ImageSource], str] | None = None) -> str:
    """A prompt as people read it: `[image]` where an image stands, and roles if more than one speaks.

    digest: names the images, so that they read `[image NAME]`.
    """
    roles = {segment.role for segment in sample.segments if isinstance(segment, Turn)}
    parts = []
    for segment in sample.segments:
        if isinstance(segment, Turn):
            parts.append(f"\n{segment.role}: " if len(roles) > 1 else "\n")
        elif isinstance(segment, Image):
            parts.append(f"[image {digest(segment.source)}] " if digest else "[image] ")
        else:
            parts.append(segment.text)
    return "".join(parts).strip()
