"""Requests of chat completions: fields, their ranges, and what is refused by name.

A body is parsed straight into these models, strictly: `"5"` and `true` are no numbers, and NaN is none either.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Discriminator, Field, StringConstraints, Tag

from lorgnette.infer.engine.request import MAX_BIASES, MAX_CHOICES, MAX_TOP_LOGPROBS
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.settings import VALIDATOR_PREFIX

MAX_MESSAGES, MAX_STOPS, MAX_STOP_LENGTH, MAX_NAME = 4096, 4, 256, 256
_STOP = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH}
STOP = {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}, {"type": "null"}]}
"""JSON schema of `stop`, whose limits are checked in one place, with one message."""
MAX_SCHEMA = 64 * 2**10
"""Characters of a JSON schema."""
REFUSED_FIELDS = {
    "tools": "tools are not supported; leave them out, or set tool_choice to none",
    "functions": "functions are not supported; leave them out",
    "function_call": "functions are not supported; leave it out",
    "audio": "audio is not supported; leave it out",
    "chat_template": "the checkpoint's own chat template is used; leave it out",
    "chat_template_kwargs": "the checkpoint's own chat template is used; leave it out",
    "prompt_embeds": "embeddings are not accepted; give messages",
    "embeddings": "embeddings are not accepted; give messages",
    "echo": "a prompt is not repeated in the answer; leave it out",
    "best_of": "answers are not ranked; use n",
}
"""Fields of OpenAI's or vLLM's that would change the answer, and are refused unless they are null, false or empty."""
ShortText = Annotated[str, StringConstraints(max_length=MAX_NAME)]


class Body(pydantic.BaseModel):
    """ContentPart of a request. Unknown keys are kept aside, so that they can be named."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


class TextPart(Body):
    """A run of text."""

    type: Literal["text"]
    text: str


class ImageLink(Body):
    """An image: a `data:` URL, or an http(s) address where the server allows it."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None
    """low for one crop, high for five or all tiles, auto and original for the model's own setting."""


class ImagePart(Body):
    """An image standing at this place of the message."""

    type: Literal["image_url"]
    image_url: ImageLink


def _kind_of_content(value: object) -> str:
    return {str: "<text>", list: "<parts>", type(None): "<null>"}.get(type(value), "<text>")


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[ContentPart], Tag("<parts>")] | Annotated[None, Tag("<null>")],
    Discriminator(_kind_of_content),
]


SAYS_SOMETHING: dict[str, Any] = {
    "anyOf": [
        {"properties": {"role": {"const": "assistant"}}},
        {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
    ]
}
"""JSON schema of what `ChatMessage` checks of its content."""


class ChatMessage(Body):
    """One message of a conversation."""

    model_config = pydantic.ConfigDict(json_schema_extra=SAYS_SOMETHING)

    role: Literal["system", "developer", "user", "assistant"]
    content: Content = None

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Self:
        extra = self.model_extra or {}
        if extra.get("tool_calls") or extra.get("function_call"):
            raise ValueError("calls of tools are not supported; write the call as text in `content`")
        if self.content is None and self.role != "assistant":
            raise ValueError(f"the {self.role}'s message has no content; give a string or a list of parts")
        return self


class StreamOptions(Body):
    """Settings of a stream."""

    include_usage: bool | None = None


class JsonSchema(Body):
    """A JSON schema that the answer satisfies."""

    name: ShortText | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """Form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @pydantic.model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is needed where type is json_schema, and nowhere else")
        return self


class Conversation(Body):
    """A model and what is said to it."""

    model: ShortText | None = None
    """Id of the model, as `GET /v1/models` lists it; the one that is served if not given."""
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)

    @pydantic.model_validator(mode="after")
    def _ends_with_content(self) -> Self:
        if self.messages[-1].content in (None, "", []) and self.messages[-1].role == "assistant":
            raise ValueError("the last message is an empty one of the assistant's; leave it out")
        return self


class ChatRequest(Conversation):
    """Body of `POST /v1/chat/completions`. What is null or not given is as the checkpoint says."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    max_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=2**31 - 1)
    """0 and -1 for all tokens."""
    min_p: float | None = Field(default=None, ge=0, lt=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Annotated[str | list[str] | None, pydantic.WithJsonSchema(STOP)] = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASES)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    response_format: ResponseFormat | None = None
    ignore_eos: bool | None = None
    cache_salt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)] | None = None
    user: ShortText | None = None
    metadata: dict[ShortText, Annotated[str, StringConstraints(max_length=512)]] | None = Field(
        default=None, max_length=16
    )
    tool_choice: str | dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None

    @pydantic.field_validator("stop")
    @classmethod
    def _stops_are_few_and_short(cls, stop: str | list[str] | None) -> list[str]:
        stops = [stop] if isinstance(stop, str) else stop or []
        if len(stops) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings")
        if not all(0 < len(one) <= MAX_STOP_LENGTH for one in stops):
            raise ValueError(f"a stop string has 1 to {MAX_STOP_LENGTH} characters")
        return stops

    @pydantic.field_validator("logit_bias")
    @classmethod
    def _biases_are_bounded(cls, biases: dict[str, float] | None) -> dict[str, float] | None:
        for token, bias in (biases or {}).items():
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                raise ValueError("keys are token ids")
            if abs(bias) > 100:
                raise ValueError("values lie between -100 and 100")
        return biases

    @pydantic.model_validator(mode="after")
    def _options_belong_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: is for streams; set stream to true")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: is for log-probabilities; set logprobs to true")
        return self


class LookRequest(Conversation):
    """Body of `POST /v1/look`: messages that show images and end with a question, and the answer to be looked up."""

    answer: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    """Text whose words are looked up in the images; the model's own greedy answer if not given."""
    max_tokens: int | None = Field(default=None, ge=1, le=256)
    """Most tokens of the model's own answer."""


def parse_body(kind: type[Conversation], content: bytes) -> Any:
    """A body as a request of this kind. Raises: ApiError 400 naming the field."""
    try:
        asked = kind.model_validate_json(content)
    except pydantic.ValidationError as problem:
        raise _refusal(problem) from None
    extra = asked.model_extra or {}
    choice = getattr(asked, "tool_choice", None)
    for name, message in REFUSED_FIELDS.items():
        if extra.get(name) and not (name == "tools" and choice == "none"):
            raise ApiError(400, f"{name}: {message}", param=name, code="unsupported_parameter")
    if choice not in (None, "none", "auto"):
        raise ApiError(400, "tool_choice: tools are not supported; use none", param="tool_choice")
    return asked


def unknown_keys(asked: Conversation) -> list[str]:
    """Keys of a request that no field stands for."""
    return [name for name in asked.model_extra or {} if name not in REFUSED_FIELDS]


def _refusal(problem: pydantic.ValidationError) -> ApiError:
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    message = first["msg"].removeprefix(VALIDATOR_PREFIX)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON ({message.removeprefix('Invalid JSON: ')})", code="invalid_json")
    param = param_of(first["loc"])
    if not param and (named := message.partition(": "))[0] in ChatRequest.model_fields:
        param, message = named[0], named[2]
    if first["type"] == "value_error" and not param:
        param = "messages"
    return ApiError(400, f"{param or 'the body'}: {message}", param=param or None, code="invalid_value")


def param_of(place: tuple[int | str, ...]) -> str:
    """The path of a field as `messages[0].content[1].image_url`, of pydantic's location."""
    path = ""
    known = {"text", "image_url"}
    for at, part in enumerate(place):
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.startswith("<") or (part in known and at and isinstance(place[at - 1], int) and path.count("[") > 1):
            continue  # which kind of content or part it is, and no name of a field
        elif part not in ("str", "list[str]"):
            path += f".{part}" if path else part
    return path


def sampling_values(asked: ChatRequest) -> Mapping[str, Any]:
    """Settings of sampling that the request states, for `SamplingParams`; a seed is drawn where it states none."""
    seed = asked.seed if asked.seed is not None else secrets.randbits(63)
    most = asked.max_completion_tokens or asked.max_tokens
    values = {
        "max_tokens": most,
        "stop": tuple(asked.stop) if asked.stop else None,
        "logit_bias": {int(token): bias for token, bias in (asked.logit_bias or {}).items()} or None,
        "logprobs": (asked.top_logprobs or 0) if asked.logprobs else None,
        "top_k": asked.top_k if (asked.top_k or 0) > 0 else None,
    }
    same = ("temperature", "top_p", "min_p", "n", "presence_penalty", "frequency_penalty", "repetition_penalty")
    values |= {name: getattr(asked, name) for name in (*same, "ignore_eos")}
    return {"seed": seed} | {name: value for name, value in values.items() if value is not None}
