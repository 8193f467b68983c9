"""From events of the engine to the objects of OpenAI's API: one answer at once, or as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lorgnette.infer.engine.request import ChosenToken, Event, Usage
from lorgnette.infer.generate import Finish
from lorgnette.serve.api.replies import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    FinishReason,
    ImageDetails,
    PromptDetails,
    TokenLogprob,
    TokenUsage,
    TopLogprob,
)
from lorgnette.serve.api.token_bytes import TokenBytes

UsageForm = Literal["absent", "null", "given"]
"""Form of the field `usage` of a chunk."""
FINISH: dict[Finish, FinishReason] = {"end": "stop", "stop": "stop", "length": "length"}
LEAST_LOGPROB = -9999.0
"""Written for what is impossible: JSON has no infinity."""


@dataclass(frozen=True)
class ReplyHead:
    """Fields that every object of one answer repeats."""

    id: str
    created: int
    model: str
    fingerprint: str

    def fields(self) -> dict[str, Any]:
        """The fields by name."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


@dataclass
class ChoiceProgress:
    """One answer as far as it has come."""

    index: int
    strip_space: bool
    """True where a space at the very beginning belongs to the template, and is not shown."""
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    begun: bool = False
    whole: str = ""
    """The text of the whole answer, once it has ended."""


class AnswerAssembler:
    """Collects the events of one request."""

    def __init__(
        self,
        head: ReplyHead,
        choices: int,
        token_bytes: TokenBytes,
        ends: frozenset[int],
        *,
        logprobs: bool,
        chat: bool,
    ) -> None:
        """ends: tokens that end an answer and have no place in its text. logprobs: whether they are reported."""
        self.head, self.token_bytes, self.ends, self.with_logprobs = head, token_bytes, ends, logprobs
        self.choices = [ChoiceProgress(number, chat) for number in range(choices)]
        self.completion_tokens = 0
        self.usage: Usage | None = None

    @property
    def is_complete(self) -> bool:
        return all(choice.finish is not None for choice in self.choices)

    def take(self, events: Sequence[Event]) -> None:
        """Add what is new. Raises: the error of an event that has one."""
        for event in events:
            if event.error is not None:
                raise event.error
            choice = self.choices[event.choice]
            choice.texts.append(event.text)
            if event.token is not None:
                self.completion_tokens += 1
                if self.with_logprobs and event.token.id not in self.ends:
                    choice.logprobs.append(self._logprob(choice, event.token))
            if event.generation is not None:
                choice.finish, choice.whole = FINISH[event.generation.finish], event.generation.text
                self.usage = event.usage

    def _logprob(self, choice: ChoiceProgress, token: ChosenToken) -> TokenLogprob:
        strips = choice.strip_space and not choice.begun
        choice.begun = True
        top = [self._top(one, logprob, strips) for one, logprob in token.top]
        chosen = self._top(token.id, token.logprob if token.logprob is not None else LEAST_LOGPROB, strips)
        return TokenLogprob(token=chosen.token, bytes=chosen.bytes, logprob=chosen.logprob, top_logprobs=top)

    def _top(self, token: int, logprob: float, strips: bool) -> TopLogprob:
        content = self.token_bytes(token)
        content = content.removeprefix(b" ") if strips else content
        text = content.decode("utf-8", "replace")
        return TopLogprob(token=text, bytes=list(content), logprob=max(logprob, LEAST_LOGPROB))

    def _take_logprobs(self, choice: ChoiceProgress) -> ChoiceLogprobs | None:
        found, choice.logprobs = choice.logprobs, []
        return ChoiceLogprobs(content=found, refusal=None) if self.with_logprobs else None

    def completion(self) -> ChatCompletion:
        """The whole answer, once it is complete."""
        return ChatCompletion(
            **self.head.fields(),
            object="chat.completion",
            choices=[
                ChatChoice(
                    index=choice.index,
                    message=AnswerMessage(role="assistant", content="".join(choice.texts), refusal=None),
                    logprobs=self._take_logprobs(choice),
                    finish_reason=choice.finish or "stop",
                )
                for choice in self.choices
            ],
            usage=self.token_usage(),
        )

    def token_usage(self) -> TokenUsage:
        """Tokens of the request so far."""
        used = self.usage or Usage(0, 0, 0)
        images = {"images": [ImageDetails(**vars(one)) for one in used.images]} if used.images else {}
        return TokenUsage(
            prompt_tokens=used.prompt_tokens,
            completion_tokens=self.completion_tokens,
            total_tokens=used.prompt_tokens + self.completion_tokens,
            prompt_tokens_details=PromptDetails(
                cached_tokens=used.cached_tokens,
                image_tokens=used.image_tokens,
                text_tokens=used.prompt_tokens - used.image_tokens,
                **images,
            ),
        )

    def chunks(self, events: Sequence[Event]) -> Iterator[ChunkChoice]:
        """The events as parts of a stream: what is new of each answer joined, then its end. Raises: as `take`."""
        ended = {choice.index for choice in self.choices if choice.finish is not None}
        try:
            self.take(events)
        finally:  # what came before an error is sent before it
            for choice in self.choices:
                text, choice.texts = "".join(choice.texts), []
                logprobs = self._take_logprobs(choice)
                if text or (logprobs is not None and logprobs.content):
                    yield _chunk(choice, Delta(content=text), logprobs)
        for choice in self.choices:
            if choice.finish is not None and choice.index not in ended:
                yield _chunk(choice, Delta(), None, choice.finish)

    def opening(self) -> Iterator[ChunkChoice]:
        """The beginning of each answer's stream: who speaks."""
        yield from (_chunk(choice, Delta(role="assistant", content=""), None) for choice in self.choices)

    def wrap(self, choices: list[ChunkChoice], usage: UsageForm) -> ChatChunk:
        """A chunk with the fields that all have. usage: how the field of that name is written."""
        values: dict[str, Any] = (
            {} if usage == "absent" else {"usage": self.token_usage() if usage == "given" else None}
        )
        return ChatChunk(**self.head.fields(), object="chat.completion.chunk", choices=choices, **values)


def _chunk(
    choice: ChoiceProgress, delta: Delta, logprobs: ChoiceLogprobs | None, finish: FinishReason | None = None
) -> ChunkChoice:
    return ChunkChoice(index=choice.index, delta=delta, logprobs=logprobs, finish_reason=finish)
