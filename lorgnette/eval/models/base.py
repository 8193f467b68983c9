"""`Model`: the base class of what is measured. Our engine, a transformers model and an HTTP server derive from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lorgnette.errors import SettingsError
from lorgnette.inputs.templates.template import turns
from lorgnette.sample import Image, ImageSource, Sample, Text, Turn

_Item = TypeVar("_Item")


class Answer(str):
    """An answer with what its server says of it; a plain string has nothing to say.

    by: who answered: what stands behind a model's name may change. declined: why there is no answer.
    """

    by: str
    declined: str

    def __new__(cls, text: str, *, by: str = "", declined: str = "") -> Answer:
        answer = super().__new__(cls, text)
        answer.by, answer.declined = by, declined
        return answer

    @classmethod
    def of(cls, value: Any) -> Answer:
        """Whatever a model returned, as an answer: bytes are decoded as UTF-8, and None is an empty text."""
        if isinstance(value, Answer):
            return value
        if isinstance(value, bytes | bytearray):
            return cls(bytes(value).decode("utf-8", "replace"))
        return cls("" if value is None else str(value))


class Model(ABC):
    """A model that answers prompts. Only `generate` is needed: everything else has a default.

    `identity` names the model to people, by a path or an address; the name of its class by default. `weights` is a
    digest of all files that decide its answers, empty where it is not known. Stored results are only resumed under
    equal identity and weights.
    """

    weights: str = ""
    encodes_images: bool = False
    """True if the model has `encode_images`, so that examples can be retrieved by similarity."""

    @cached_property
    def identity(self) -> str:
        """The model's name in stored results."""
        return type(self).__name__

    @abstractmethod
    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The continuation of each prompt: at most `max_tokens` tokens, ending before the first stop string.

        An `Answer` may say why there is none.
        """

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each prompt, the log-likelihood (in nats, summed over tokens) of each of its candidate continuations.

        Raises: SettingsError if the model gives no likelihoods.
        """
        raise SettingsError(f"{self.identity}: gives no likelihoods of texts; ask with --choices generation")

    def encode_images(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """A vector of length 1 for each image, from the vision encoder: shape (images, width).

        Raises: SettingsError if the model does not show its vision features.
        """
        raise SettingsError(f"{self.identity}: does not show its vision features; choose shots with --choose random")

    def rendered_prompts(self, samples: Sequence[Sample]) -> list[str]:
        """The text that the model reads for each prompt, special tokens written out; empty where it does not say."""
        return [""] * len(samples)

    def environment(self) -> dict[str, Any]:
        """Environment of the model, for the record: device, type of its numbers, versions of libraries."""
        return {}


def in_runs(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Items in runs of `size` neighbours; the last one may be shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def until_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return min((text.partition(mark)[0] for mark in stop), key=len, default=text)


def with_crops(identity: str, split: bool | None) -> str:
    """Identity of a model with or without image splitting; the model's own where it decides."""
    return identity + {None: "", True: ", images in five crops", False: ", images in one crop"}[split]


def conversation(sample: Sample) -> list[tuple[str, list[Text | Image]]]:
    """Each turn: its role, and its contents with neighbouring texts joined. A document is one turn of the user."""
    if sample.is_chat:
        return [(role, _joined(contents)) for role, contents in turns(sample)]
    return [("user", _joined(one for one in sample.segments if not isinstance(one, Turn)))]


def _joined(contents: Iterable[Text | Image]) -> list[Text | Image]:
    joined: list[Text | Image] = []
    for content in contents:
        if isinstance(content, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + content.text)
        else:
            joined.append(content)
    return joined
