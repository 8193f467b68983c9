"""Rules of a checkpoint applied to logits, as the processors of transformers' `generate` apply them, in their order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorgnette.inputs.generation_rules import GenerationRules

NEVER = float("-inf")


class LogitRules:
    """Changes the logits of one answer after another; `tokens` are always those of the prompt and of the answer."""

    def __init__(self, rules: GenerationRules, ends: frozenset[int] = frozenset()) -> None:
        """ends: ids that end an answer, which `min_length` holds back."""
        self.rules, self.ends = rules, sorted(ends)
        self.words = [word for word in rules.bad_words if len(word) == 1]
        self.phrases = [word for word in rules.bad_words if len(word) > 1]

    def apply(self, logits_K: Tensor, tokens: Sequence[int], answered: int, most: int | None) -> None:
        """Change a row of logits in place.

        answered: how many of `tokens` are the answer's. most: how many tokens the answer may have.
        """
        rules, size = self.rules, len(logits_K)
        if rules.repetition_penalty != 1:
            seen = torch.tensor(sorted({token for token in tokens if token < size}), device=logits_K.device)
            scores = logits_K[seen]
            logits_K[seen] = torch.where(
                scores < 0, scores * rules.repetition_penalty, scores / rules.repetition_penalty
            )
        banned = [*_repeating(tokens, rules.no_repeat_ngram), *(word[0] for word in self.words)]
        banned += [word[-1] for word in self.phrases if _ends_with(tokens, word[:-1])]
        if len(tokens) < rules.min_length or answered < rules.min_new_tokens:
            banned += self.ends
        logits_K[_within(banned, size)] = NEVER
        if rules.forced_first is not None and len(tokens) == 1:
            _force(logits_K, [rules.forced_first])
        if rules.forced_last and most is not None and answered == most - 1:
            _force(logits_K, rules.forced_last)
        logits_K[_within(rules.suppressed, size)] = NEVER
        if answered == 0:
            logits_K[_within(rules.suppressed_first, size)] = NEVER


def _repeating(tokens: Sequence[int], length: int) -> list[int]:
    """Tokens that would end a sequence of `length` tokens that occurred before."""
    if not length or len(tokens) + 1 < length:
        return []
    last = list(tokens[len(tokens) - length + 1 :])
    places = range(len(tokens) - length + 1)
    return [tokens[at + length - 1] for at in places if list(tokens[at : at + length - 1]) == last]


def _ends_with(tokens: Sequence[int], tail: Sequence[int]) -> bool:
    return len(tail) <= len(tokens) and list(tokens[len(tokens) - len(tail) :]) == list(tail)


def _within(ids: Sequence[int], size: int) -> list[int]:
    return [token for token in ids if token < size]


def _force(logits_K: Tensor, ids: Sequence[int]) -> None:
    logits_K[:] = NEVER
    logits_K[_within(ids, len(logits_K))] = 0.0
