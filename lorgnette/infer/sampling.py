"""From logits to a token: greedy, temperature, top-k, top-p. Every document draws from its own seeded generator."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import pydantic
import torch
from torch import Tensor

from lorgnette.settings import Settings


class GenerationConfig(Settings):
    """How answers are generated. Defaults are greedy decoding."""

    max_tokens: int = pydantic.Field(default=256, ge=1)
    """Most tokens per answer."""
    temperature: float = pydantic.Field(default=0.0, ge=0)
    """0 takes the likeliest token; 1 draws from the model's own distribution."""
    top_k: int | None = pydantic.Field(default=None, ge=1)
    """Draw among this many likeliest tokens only; None for all."""
    top_p: float = pydantic.Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together reach this probability (nucleus sampling)."""
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these strings."""
    seed: int = 0
    """Equal seeds, equal draws. What stands beside a prompt in its batch does not matter."""

    @pydantic.field_validator("stop")
    @classmethod
    def _stops_say_something(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("a stop string is empty; every answer would end before it began")
        return stop


class Sampler:
    """Chooses the next token of each document.

    A document's generator is seeded by the seed, its own prompt, and how many equal prompts stand before it: so the
    other prompts of the batch change nothing, and a prompt given four times gets four draws.
    """

    def __init__(
        self, settings: GenerationConfig, prompts: Sequence[Sequence[int]], banned: Sequence[int] = ()
    ) -> None:
        """prompts: the token ids of each document. banned: ids that are never chosen."""
        self.settings = settings
        self.banned = list(banned)
        copies: Counter[tuple[int, ...]] = Counter()
        self.generators = []
        for prompt in prompts:
            key = tuple(prompt)
            self.generators.append(torch.Generator().manual_seed(_seed(settings.seed, key, copies[key])))
            copies[key] += 1

    def choose(self, logits_BK: Tensor, documents: Sequence[int]) -> list[int]:
        """One token for each row of `logits_BK`; row b belongs to `documents[b]`."""
        logits_BK = logits_BK.float()
        if self.banned:
            logits_BK = logits_BK.clone()
            logits_BK[:, self.banned] = float("-inf")
        if self.settings.temperature == 0:
            return logits_BK.argmax(dim=-1).tolist()
        uniform_B = torch.cat([torch.rand(1, generator=self.generators[d], dtype=torch.float64) for d in documents])
        return draw(logits_BK, uniform_B.to(logits_BK.device), self.settings).tolist()


def draw(logits_BK: Tensor, uniform_B: Tensor, settings: GenerationConfig) -> Tensor:
    """The token of each row where the cumulative probability of those kept passes `uniform_B` (float64 in [0, 1))."""
    scores_BK = logits_BK.double() / settings.temperature
    tokens_BK = torch.arange(scores_BK.shape[-1], device=scores_BK.device).expand_as(scores_BK)
    if settings.top_k is not None:
        scores_BK, tokens_BK = scores_BK.topk(min(settings.top_k, scores_BK.shape[-1]))
    elif settings.top_p < 1:
        scores_BK, tokens_BK = scores_BK.sort(dim=-1, descending=True, stable=True)
    probability_BK = scores_BK.softmax(dim=-1)
    likelier_BK = probability_BK.cumsum(dim=-1) - probability_BK
    kept_BK = probability_BK if settings.top_p == 1 else torch.where(likelier_BK < settings.top_p, probability_BK, 0.0)
    reached_BK = kept_BK.cumsum(dim=-1)
    total_BK = reached_BK[:, -1:].contiguous()
    place_BK = torch.searchsorted(reached_BK, uniform_B[:, None] * total_BK, right=True)
    last_BK = torch.searchsorted(reached_BK, total_BK)  # a product rounded up must not pass the last token kept
    return tokens_BK.gather(-1, torch.minimum(place_BK, last_BK))[:, 0]


def _seed(seed: int, prompt: tuple[int, ...], copy: int) -> int:
    digest = hashlib.sha256(repr((seed, prompt, copy)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # a non-negative int64
