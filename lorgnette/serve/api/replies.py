"""Answers of chat completions, field by field as OpenAI's clients read them.

`exclude_unset` decides what is written: a field that is not given does not appear, and one that is None is null.
"""

from __future__ import annotations

from typing import Literal

import pydantic

FinishReason = Literal["stop", "length"]


class TopLogprob(pydantic.BaseModel):
    """A token that might have been chosen, and the logarithm of its probability."""

    token: str
    bytes: list[int]
    """Its bytes: a token may be half a character."""
    logprob: float


class TokenLogprob(TopLogprob):
    """A token that was chosen."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(pydantic.BaseModel):
    """Log-probabilities of the tokens of an answer, or of a part of it."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(pydantic.BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(pydantic.BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ImageDetails(pydantic.BaseModel):
    """One image of a request."""

    tokens: int
    crops: int
    cached: bool
    """Whether it did not have to be encoded."""


class PromptDetails(pydantic.BaseModel):
    """Parts of a prompt's tokens."""

    cached_tokens: int
    """Tokens whose keys and values were there from an earlier request."""
    image_tokens: int
    text_tokens: int
    images: list[ImageDetails] = []
    """The images, in order; absent where there are none."""


class TokenUsage(pydantic.BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(pydantic.BaseModel):
    """Answer to a request that is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: TokenUsage


class Delta(pydantic.BaseModel):
    """More of a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(pydantic.BaseModel):
    """More of one answer."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(pydantic.BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: TokenUsage | None = None
    """Null in all chunks but the last where the request asks for it, and absent otherwise."""


class ModelRow(pydantic.BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(pydantic.BaseModel):
    """All models that are served."""

    object: Literal["list"]
    data: list[ModelRow]


class Tokenized(pydantic.BaseModel):
    """A prompt as token ids."""

    count: int
    image_tokens: int
    max_model_len: int
    tokens: list[int]


class HealthReply(pydantic.BaseModel):
    """Body of `/health` and `/ready` where all is well."""

    status: Literal["ok"]


class LookMap(pydantic.BaseModel):
    """Worth of each place of a picture: the fall of log-probability without it, row by row from the top left."""

    width: int
    height: int
    values: list[float]


class LookWord(pydantic.BaseModel):
    """A word of the answer."""

    text: str
    logprob: float
    """Of its tokens together."""
    maps: list[LookMap]
    """For each picture, in nats."""


class LookReply(pydantic.BaseModel):
    """Maps of an answer over the pictures of its prompt, and the check that they mean something."""

    object: Literal["look"]
    model: str
    answer: str
    says_something: bool
    """False where taking out the places that the map marks costs no more than taking out random ones."""
    gain: float
    """How much more it costs, in nats a token."""
    interval: list[float]
    """Low and high over single random orders."""
    sentence: str
    """The same for people."""
    blind: float
    """Log-probability with the pictures minus with others, in nats a token: at 0 or less they were not needed."""
    blind_sentence: str
    """The same for people."""
    removes_patches: bool
    """Whether places were removed; else they took the mean colour of their picture."""
    maps: list[LookMap]
    """For each picture, of the whole answer, in nats a token."""
    words: list[LookWord]


class ErrorDetail(pydantic.BaseModel):
    """One refusal."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(pydantic.BaseModel):
    """Body of every status that is not 200."""

    error: ErrorDetail
