"""The next token of each answer, by the settings of its own request.

What stands beside an answer in a step does not matter: its generator is seeded by (seed, prompt, choice).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from lorgnette.errors import DataError, LorgnetteError
from lorgnette.infer.engine.constraint import Constraint
from lorgnette.infer.engine.request import ChosenToken, SamplingParams, as_fault
from lorgnette.infer.generate import end_tokens, slot_tokens
from lorgnette.infer.logits import LogitRules
from lorgnette.infer.sampling import draw, seeded_generator
from lorgnette.inputs.processor import Processor


class TokenSampler:
    """Chooses the tokens of one answer."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: tuple[int, ...],
        choice: int,
        processor: Processor,
        most: int,
        constraint: Constraint | None = None,
    ) -> None:
        """most: tokens that the answer may have."""
        self.params, self.most, self.constraint = params, most, constraint
        rules = processor.generation
        if params.repetition_penalty is not None:
            rules = rules.model_copy(update={"repetition_penalty": params.repetition_penalty})
        self.rules = LogitRules(rules, end_tokens(processor)) if rules.change_logits else None
        self.banned = slot_tokens(processor)
        self.tokens, self.prompt_tokens = list(prompt), len(prompt)
        """Tokens of the prompt, and of the answer so far."""
        self.counts: Counter[int] = Counter()
        self.generator = seeded_generator(params.seed, prompt, choice)
        self.biased = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self.biases = torch.tensor(list(params.logit_bias.values()))

    @property
    def is_plain(self) -> bool:
        """Return whether the likeliest token is taken, and nothing else is asked for."""
        params = self.params
        changed = params.logit_bias or params.presence_penalty or params.frequency_penalty or self.rules
        return params.temperature == 0 and params.logprobs is None and not changed and self.constraint is None

    def choose(self, logits_K: Tensor) -> ChosenToken:
        """The next token from the model's logits (float32, on the CPU), which are changed in place.

        Raises: DataError if the grammar allows no token.
        """
        raw_K = logits_K.log_softmax(-1) if self.params.logprobs is not None else None
        logits_K[self.banned] = float("-inf")
        self._apply_settings(logits_K)
        if self.params.temperature == 0:
            token = int(logits_K.argmax())
        else:
            uniform = torch.rand(1, generator=self.generator, dtype=torch.float64)
            token = int(draw(logits_K[None], uniform, self.params)[0])
        self.take(token)
        return _reported(token, raw_K, self.params.logprobs or 0)

    def take(self, token: int) -> None:
        """Remember a token that was chosen."""
        self.tokens.append(token)
        self.counts[token] += 1
        if self.constraint is not None:
            self.constraint.accept(token)

    def _apply_settings(self, logits_K: Tensor) -> None:
        """Penalties, biases, the checkpoint's rules and the grammar, in this order."""
        params = self.params
        if self.counts and (params.presence_penalty or params.frequency_penalty):
            counts = torch.tensor(list(self.counts.values()), dtype=torch.float32)
            logits_K[list(self.counts)] -= params.frequency_penalty * counts + params.presence_penalty
        if len(self.biased):
            logits_K[self.biased] += self.biases
        if self.rules is not None:
            self.rules.apply(logits_K, self.tokens, len(self.tokens) - self.prompt_tokens, self.most)
        if self.constraint is not None:
            logits_K.masked_fill_(~self.constraint.allowed(), float("-inf"))
        if float(logits_K.max()) == float("-inf"):
            raise DataError("no token may come next: the grammar, or the biases, leave none")


def _reported(token: int, log_probabilities_K: Tensor | None, top: int) -> ChosenToken:
    if log_probabilities_K is None:
        return ChosenToken(token)
    values, ids = log_probabilities_K.topk(min(top, len(log_probabilities_K)))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return ChosenToken(token, float(log_probabilities_K[token]), tuple(pairs))


def choose_tokens(logits_BK: Tensor, samplers: Sequence[TokenSampler]) -> list[ChosenToken | LorgnetteError]:
    """The next token of each row, or why there is none: one row's failure is not another's."""
    logits_BK = logits_BK.to("cpu", torch.float32, copy=True)
    failed = logits_BK.isnan().any(-1).tolist()
    plain = [row for row, one in enumerate(samplers) if one.is_plain]
    chosen: dict[int, ChosenToken | LorgnetteError] = {}
    if plain:
        rows_BK = logits_BK[plain] if len(plain) < len(samplers) else logits_BK
        rows_BK[:, samplers[plain[0]].banned] = float("-inf")
        chosen = {row: ChosenToken(token) for row, token in zip(plain, rows_BK.argmax(-1).tolist(), strict=True)}
    for row, sampler in enumerate(samplers):
        if failed[row]:
            chosen[row] = DataError("the model computes NaN (not a number) instead of scores for this prompt")
        elif row in chosen:
            sampler.take(chosen[row].id)  # type: ignore[union-attr]  # a plain row has a token
        else:
            chosen[row] = _chosen(sampler, logits_BK[row])
    return [chosen[row] for row in range(len(samplers))]


def _chosen(sampler: TokenSampler, logits_K: Tensor) -> ChosenToken | LorgnetteError:
    try:
        return sampler.choose(logits_K)
    except Exception as error:  # of a grammar, which is somebody else's code
        return as_fault(error, "the next token could not be chosen")
