"""`Answerer`: what is measured. Our engine, a transformers model and an HTTP server all satisfy it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lorgnette.sample import Sample


class Answer(str):
    """An answer with what its server says of it; a plain string has nothing to say.

    by: who answered: what stands behind a model's name may change. declined: why there is no answer.
    """

    by: str
    declined: str

    def __new__(cls, text: str, *, by: str = "", declined: str = "") -> Answer:
        answer = super().__new__(cls, text)
        answer.by, answer.declined = by, declined
        return answer


def until_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return min((text.partition(mark)[0] for mark in stop), key=len, default=text)


def with_crops(identity: str, split: bool | None) -> str:
    """Identity of a model with or without image splitting; the model's own where it decides."""
    return identity + {None: "", True: ", images in five crops", False: ", images in one crop"}[split]


class Answerer(Protocol):
    """Whatever can answer prompts.

    An answerer may also have
    - `identity: str`: names it to people, by a path or an address; without one the name of its class stands in;
    - `weights: str`: a digest of all files that decide its answers. Stored results are only resumed under the same
      identity and weights;
    - `facts: Mapping[str, Any]`: where it runs, for the record: device, type of its numbers, version of its library;
    - `written(samples) -> list[str]`: the very text that it reads for each prompt, special tokens spelled out.
    """

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The continuation of each prompt: at most `max_tokens` tokens, ending before the first stop string."""
        ...

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each prompt, the log-likelihood (in nats, summed over tokens) of each of its candidate continuations."""
        ...


def identity_of(answerer: Answerer) -> str:
    """Identity of the model in stored results."""
    return str(getattr(answerer, "identity", type(answerer).__name__))


def weights_of(answerer: Answerer) -> str:
    """The digest of the answerer's files; empty where it knows none."""
    return str(getattr(answerer, "weights", ""))


def facts_of(answerer: Answerer) -> Mapping[str, Any]:
    """Device and precision of the model."""
    return dict(getattr(answerer, "facts", {}))


def written_by(answerer: Answerer, samples: Sequence[Sample]) -> list[str]:
    """The very text that the answerer reads for each prompt; empty where it does not say."""
    write = getattr(answerer, "written", None)
    return [""] * len(samples) if write is None else list(write(samples))
