"""From chunks that were computed to the next tokens of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lorgnette.errors import LorgnetteError
from lorgnette.infer.engine.answer_state import AnswerState
from lorgnette.infer.engine.model_runner import Ran
from lorgnette.infer.engine.request import ChosenToken
from lorgnette.infer.engine.scheduler import Scheduler
from lorgnette.infer.engine.token_sampler import choose_tokens


def advance(scheduler: Scheduler, ran: Sequence[Ran]) -> Iterator[tuple[AnswerState, ChosenToken | LorgnetteError]]:
    """The next token of every answer whose last known one was computed, and the error of every chunk that failed."""
    rows = []
    for one in ran:
        answer = one.chunk.answer
        if one.error is not None:
            yield answer, one.error
        elif answer.document is not None:  # else another chunk of its request has failed
            scheduler.advanced(answer)
            if one.chunk.is_last and one.logits_K is not None:
                rows += [(other, one.logits_K) for other in _choosing(scheduler, answer)]
    if rows:
        logits_BK = torch.stack([logits_K for _, logits_K in rows])
        yield from zip(
            (answer for answer, _ in rows), choose_tokens(logits_BK, [one.sampler for one, _ in rows]), strict=True
        )


def _choosing(scheduler: Scheduler, answer: AnswerState) -> list[AnswerState]:
    """The answers that choose a token from this one's logits: at the end of the prompt, all of the request's."""
    if answer.answer.tokens or len(answer.owner.answers) == 1:
        return [answer]
    for other in answer.owner.answers[1:]:
        scheduler.fork(answer, other)
    return answer.owner.answers
