"""From logits to a token: greedy, temperature, top-k, top-p. Every document draws from its own seeded generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from lorgnette.errors import DataError
from lorgnette.infer.generation_config import GenerationConfig as GenerationConfig
from lorgnette.infer.generation_config import with_rules as with_rules
from lorgnette.infer.logits import LogitRules
from lorgnette.model.ops.device import in_float64
from lorgnette.seeds import derive_seed


class Sampler:
    """Chooses the next token of each document.

    A document's generator is seeded by the seed, its own prompt, and how many equal prompts stand before it: so the
    other prompts of the batch change nothing, and a prompt given four times gets four draws.
    """

    def __init__(
        self,
        settings: GenerationConfig,
        prompts: Sequence[Sequence[int]],
        banned: Sequence[int] = (),
        rules: LogitRules | None = None,
        most: Sequence[int] | None = None,
    ) -> None:
        """prompts: the token ids of each document. banned: ids that are never chosen.

        rules: of the checkpoint. most: how many tokens each answer may have.
        """
        self.settings = settings
        self.banned = list(banned)
        self.rules = rules if rules is not None and rules.rules.change_logits else None
        self.tokens, self.begun = [list(prompt) for prompt in prompts], [len(prompt) for prompt in prompts]
        self.most: list[int | None] = list(most) if most is not None else [None] * len(prompts)
        copies: Counter[tuple[int, ...]] = Counter()
        self.generators = []
        for prompt in prompts:
            key = tuple(prompt)
            self.generators.append(seeded_generator(settings.seed, key, copies[key]))
            copies[key] += 1

    def choose(self, logits_BK: Tensor, documents: Sequence[int]) -> list[int]:
        """One token for each row of `logits_BK`; row b belongs to `documents[b]`.

        Raises: DataError if the model computed no numbers.
        """
        logits_BK = self._allowed(logits_BK, documents)
        if self.settings.temperature == 0:
            chosen: list[int] = logits_BK.argmax(dim=-1).tolist()
        else:
            uniform_B = torch.cat([torch.rand(1, generator=self.generators[d], dtype=torch.float64) for d in documents])
            chosen = draw(logits_BK, uniform_B, self.settings).tolist()
        for document, token in zip(documents, chosen, strict=True):
            self.tokens[document].append(token)
        return chosen

    def _allowed(self, logits_BK: Tensor, documents: Sequence[int]) -> Tensor:
        """The logits in float32, as the rules leave them."""
        logits_BK = logits_BK.to(torch.float32, copy=True)
        if logits_BK.isnan().any():
            raise DataError(
                "the model computes NaN (not a number) instead of scores: its weights hold NaN or infinity, or their"
                " type overflows; load a sound checkpoint, or this one as float32"
            )
        if self.banned:
            logits_BK[:, self.banned] = float("-inf")
        if self.rules is not None:
            for row, document in enumerate(documents):
                tokens = self.tokens[document]
                self.rules.apply(logits_BK[row], tokens, len(tokens) - self.begun[document], self.most[document])
        return logits_BK


def draw(logits_BK: Tensor, uniform_B: Tensor, settings: GenerationConfig) -> Tensor:
    """The token of each row where the cumulative probability of those kept passes `uniform_B` (float64 in [0, 1))."""
    scores_BK = in_float64(logits_BK) / settings.temperature
    uniform_B = uniform_B.to(scores_BK.device)
    tokens_BK = torch.arange(scores_BK.shape[-1], device=scores_BK.device).expand_as(scores_BK)
    if settings.top_k is not None:
        scores_BK, tokens_BK = scores_BK.topk(min(settings.top_k, scores_BK.shape[-1]))
    elif settings.top_p < 1:
        scores_BK, tokens_BK = scores_BK.sort(dim=-1, descending=True, stable=True)
    probability_BK = scores_BK.softmax(dim=-1)
    likelier_BK = probability_BK.cumsum(dim=-1) - probability_BK
    kept_BK = probability_BK if settings.top_p == 1 else torch.where(likelier_BK < settings.top_p, probability_BK, 0.0)
    if settings.min_p:
        kept_BK = torch.where(probability_BK < settings.min_p * probability_BK.amax(-1, keepdim=True), 0.0, kept_BK)
    reached_BK = kept_BK.cumsum(dim=-1)
    total_BK = reached_BK[:, -1:].contiguous()
    place_BK = torch.searchsorted(reached_BK, uniform_B[:, None] * total_BK, right=True)
    last_BK = torch.searchsorted(reached_BK, total_BK)  # a product rounded up must not pass the last token kept
    return tokens_BK.gather(-1, torch.minimum(place_BK, last_BK))[:, 0]


def seeded_generator(seed: int, prompt: tuple[int, ...], copy: int) -> torch.Generator:
    """Generator of one answer, from the seed, the tokens of its prompt, and how many answers to it come before."""
    return torch.Generator().manual_seed(derive_seed(seed, prompt, copy))
