"""Placement of requests on workers: where their images and prefixes are cached, unless that worker has too much to do.

Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016): a request goes to the worker that its
key falls to, and on around the ring from one that has more than 1.25 times the mean. One without a key goes to the
worker with the fewest outstanding tokens.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pydantic

POINTS_ON_RING = 64
"""Places of each worker on the ring."""
MOST_OF_MEAN = 1.25
"""Outstanding tokens that a worker may have, as a share of the mean of all, before others take its requests."""
MOST_PREFIX = 512
"""Characters of a conversation's beginning that make its key."""
LEAST_PREFIX = 64
"""Characters below which a beginning is not worth finding again."""
TOKENS_OF_IMAGE, CHARACTERS_PER_TOKEN, TOKENS_OF_ANSWER = 64, 4, 256
"""Estimates for the tokens of a request, which the router does not tokenize."""


class Loaded(Protocol):
    """A worker, as far as its place is concerned."""

    @property
    def number(self) -> int:
        """Its place in the list of workers, which stays when it is restarted."""

    @property
    def tokens(self) -> int:
        """Estimated tokens of the requests that it is answering."""


_BODY = pydantic.TypeAdapter(dict[str, Any])
_Worker = TypeVar("_Worker", bound=Loaded)


@dataclass(frozen=True)
class Demand:
    """A request as the placement sees it."""

    key: bytes | None
    """Digest of what a worker may have cached; None if nothing is."""
    tokens: int
    """Estimate of its tokens, those of the answers included."""


def demand_of(content: bytes, owner: str) -> Demand:
    """The demand of a body. owner: name of the API key, whose prefixes are its own.

    A body that is not as it should be has no key: a worker says what is wrong with it.
    """
    try:
        asked = _BODY.validate_json(content)
        parts = list(_parts(asked["messages"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Demand(None, 1)
    images = [part for kind, part in parts if kind == "image"]
    text = "".join(part for kind, part in parts if kind == "text")
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or TOKENS_OF_ANSWER
    answers = asked.get("n") or 1
    estimate = len(text) // CHARACTERS_PER_TOKEN + TOKENS_OF_IMAGE * len(images)
    if all(isinstance(one, int) and 0 < one < 2**20 for one in (most, answers)):
        estimate += most * answers
    salt = f"{owner}\0{asked.get('cache_salt') or ''}\0"
    if images:
        return Demand(_digest(salt + images[0]), estimate)
    return Demand(_digest(salt + text[:MOST_PREFIX]) if len(text) >= LEAST_PREFIX else None, estimate)


def _parts(messages: Any) -> Iterator[tuple[str, str]]:
    """Texts and addresses of images, in their order."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield "text", content
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "text":
                yield "text", str(part["text"])
            elif part.get("type") == "image_url":
                yield "image", str(part["image_url"]["url"])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Ring:
    """Workers on a ring. A worker that is missing changes the place of its own requests alone."""

    def __init__(self, workers: int) -> None:
        points = [
            (_digest(f"{number}/{point}"), number) for number in range(workers) for point in range(POINTS_ON_RING)
        ]
        self._points = sorted(points)
        self._places = [place for place, _ in self._points]

    def order(self, key: bytes) -> list[int]:
        """Numbers of all workers, beginning with the one that a key falls to."""
        at = bisect_right(self._places, key)
        return list(dict.fromkeys(number for _, number in self._points[at:] + self._points[:at]))

    def choose(self, demand: Demand, workers: Sequence[_Worker]) -> _Worker | None:
        """The worker for a request, of those that are ready; None if there is none."""
        if not workers:
            return None
        idle = min(workers, key=lambda worker: (worker.tokens, worker.number))
        if demand.key is None:
            return idle
        by_number = {worker.number: worker for worker in workers}
        mean = (sum(worker.tokens for worker in workers) + demand.tokens) / len(workers)
        for number in self.order(demand.key):
            worker = by_number.get(number)
            if worker and (not worker.tokens or worker.tokens + demand.tokens <= MOST_OF_MEAN * mean):
                return worker
        return idle
