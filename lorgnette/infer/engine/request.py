"""Requests and the events that answer them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pydantic

from lorgnette.errors import LorgnetteError
from lorgnette.infer.engine.constraint import Constraint
from lorgnette.infer.generate import Generation
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.sample import Sample

MAX_CHOICES, MAX_TOP_LOGPROBS, MAX_BIASES = 8, 20, 1024


class QueueFull(LorgnetteError):
    """A request comes while as many wait as may."""


class QueueTimeout(LorgnetteError):
    """A request has waited for admission longer than it may."""


class EngineFault(LorgnetteError):
    """The model failed on a request; the cause is the exception that it raised."""


def as_fault(error: Exception, failure: str) -> LorgnetteError:
    """The error of a request: its own fault as it is, that of other code by `failure` and its exception's name."""
    if isinstance(error, LorgnetteError):
        return error
    fault = EngineFault(f"{failure} ({type(error).__name__})")
    fault.__cause__ = error
    return fault


class SamplingParams(GenerationConfig):
    """Sampling settings of one request. Names and ranges are those of OpenAI's chat completions."""

    n: int = pydantic.Field(default=1, ge=1, le=MAX_CHOICES)
    """Answers to the same prompt."""
    presence_penalty: float = pydantic.Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logit of every token that the answer holds."""
    frequency_penalty: float = pydantic.Field(default=0.0, ge=-2, le=2)
    """Subtracted from the logit of a token as often as the answer holds it."""
    repetition_penalty: float | None = pydantic.Field(default=None, gt=0)
    """Divides positive logits of tokens of prompt and answer, multiplies negative ones; None as the checkpoint says."""
    logit_bias: dict[pydantic.NonNegativeInt, float] = pydantic.Field(default={}, max_length=MAX_BIASES)
    """Added to the logits of these token ids."""
    logprobs: int | None = pydantic.Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    """Report the log-probability of each token, and of so many likeliest ones; None for no report."""
    ignore_eos: bool = False
    """Tokens that end an answer do not: it is as long as it may be."""

    @pydantic.field_validator("logit_bias")
    @classmethod
    def _biases_are_bounded(cls, biases: dict[int, float]) -> dict[int, float]:
        if any(not math.isfinite(bias) or abs(bias) > 100 for bias in biases.values()):
            raise ValueError("logit_bias has values from -100 to 100")
        return biases


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt to be answered."""

    id: str
    """Names the request in events; no other request in the engine may have it."""
    sample: Sample
    params: SamplingParams = field(default_factory=SamplingParams)
    """Sampling parameters; those not given come from the checkpoint's generation_config.json."""
    key: str = ""
    """Whose request it is: keys take turns at admission."""
    salt: str | None = None
    """Prefixes and visual tokens are shared among requests of equal salts; None for the key."""
    split: bool | None = None
    """Images in crops (quadrants or tiles) or whole, over the processor's own setting."""
    constraint: Constraint | None = None
    """Grammar of the answers."""

    @property
    def tenant(self) -> str:
        """Whose prefixes and visual tokens it shares: the salt, or the key where there is none."""
        return self.key if self.salt is None else self.salt


@dataclass(frozen=True)
class ChosenToken:
    """A token of an answer."""

    id: int
    logprob: float | None = None
    """Natural logarithm of its probability by the model itself, before penalties and temperature."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest ids and their log-probabilities, likeliest first."""


@dataclass(frozen=True)
class ImageUsage:
    """One image of a request."""

    tokens: int
    """Visual tokens of all its crops."""
    crops: int
    cached: bool
    """Whether it did not have to be encoded."""


@dataclass(frozen=True)
class Usage:
    """Tokens of a request, known when its prompt has been computed."""

    prompt_tokens: int
    image_tokens: int
    """Visual tokens of the prompt."""
    cached_tokens: int
    """Tokens of the prompt whose keys and values came from the prefix cache."""
    images: tuple[ImageUsage, ...] = ()


@dataclass(frozen=True)
class Event:
    """News of one answer: a token, the text that it makes certain, and with the last one the whole answer.

    The texts of an answer's events add up to its text. An event with an error ends all answers to its request.
    """

    request: str
    choice: int = 0
    token: ChosenToken | None = None
    text: str = ""
    generation: Generation | None = None
    usage: Usage | None = None
    """With `generation`."""
    error: LorgnetteError | None = None
