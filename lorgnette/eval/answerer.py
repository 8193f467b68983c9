"""`Answerer`: what is measured. Our engine, a transformers model and an HTTP server all satisfy it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lorgnette.sample import Sample


class Answerer(Protocol):
    """Whatever can answer prompts.

    An answerer may also have an `identity: str` that names its weights (a checkpoint path and step, a digest). Stored
    results are only resumed under the same identity; without one the name of its class stands in.
    """

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The continuation of each prompt: at most `max_tokens` tokens, ending before the first stop string."""
        ...

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each prompt, the log-likelihood (in nats, summed over tokens) of each of its candidate continuations."""
        ...


def identity_of(answerer: Answerer) -> str:
    """What names the answerer's weights in stored results."""
    return str(getattr(answerer, "identity", type(answerer).__name__))
