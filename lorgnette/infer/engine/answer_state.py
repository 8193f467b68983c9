"""State of one answer to a request: its tokens, how many of them are in the KV cache, and what ends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from lorgnette.infer.engine.answer_images import AnswerImages
from lorgnette.infer.engine.memory.kv_store import CachedDocument
from lorgnette.infer.engine.prompt import Prompt
from lorgnette.infer.engine.request import ImageUsage, Request, Usage
from lorgnette.infer.engine.token_sampler import TokenSampler
from lorgnette.infer.generate import GrowingAnswer
from lorgnette.infer.image_cache import ImageFeatureCache


@dataclass(eq=False)
class RequestState:
    """A request in the engine."""

    request: Request
    prompt: Prompt
    arrival: int
    """Requests that came before it."""
    since: float
    """Time at which it came."""
    root: bytes
    """Hash that stands for what is before its first block."""
    answers: list[AnswerState] = field(default_factory=list)
    """One for each choice. The first alone computes the prompt, and the others fork from it."""
    cached_tokens: int = 0
    encoded: set[int] = field(default_factory=set)
    """Numbers of the images that were encoded for it."""

    def usage(self, image_cache: ImageFeatureCache) -> Usage:
        """Tokens and images of the request."""
        prompt = self.prompt
        tokens = (last - first for first, last in pairwise(prompt.firsts))
        images = tuple(
            ImageUsage(count, len(image_cache.crops(image)), number not in self.encoded)
            for number, (image, count) in enumerate(zip(prompt.images, tokens, strict=True))
        )
        return Usage(len(prompt.tokens), len(prompt.places), self.cached_tokens, images)


@dataclass(eq=False)
class AnswerState:
    """One answer in the making."""

    owner: RequestState
    choice: int
    sampler: TokenSampler
    answer: GrowingAnswer
    images: AnswerImages
    document: CachedDocument | None = None
    """Its keys and values; None while it waits, and after it has ended."""
    hashes: list[bytes] = field(default_factory=list)
    """Of the whole blocks of `tokens`, as far as they were needed."""

    @property
    def tokens(self) -> list[int]:
        """Tokens of the prompt, and of the answer so far."""
        return self.sampler.tokens

    @property
    def order(self) -> tuple[int, int]:
        """Older answers come first."""
        return self.owner.arrival, self.choice

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are stored."""
        return self.document.length if self.document is not None else 0

    @property
    def pending(self) -> int:
        """Tokens still to be computed before the next one is chosen."""
        return len(self.tokens) - self.computed

    @property
    def grows(self) -> bool:
        """Return whether its newest token alone is still to be computed, and all that this reads is there."""
        return self.pending == 1 and self.first_missing > self.computed

    @property
    def first_missing(self) -> int:
        """Place of the first token to be computed that reads an image which is not encoded; the end if none does."""
        return self.images.first_missing(self.computed, len(self.tokens))

    def first_room(self, more: int) -> int:
        """Tokens for which there must be memory when it begins, or begins again. more: of the answer, if it may have so
        many."""
        return len(self.tokens) + min(self.answer.most - len(self.answer.tokens), more) - 1

    def block_hashes(self, block: int, tokens: int) -> list[bytes]:
        """Hashes of the whole blocks within the first `tokens` tokens."""
        for start in range(len(self.hashes) * block, tokens - block + 1, block):
            before = self.hashes[-1] if self.hashes else self.owner.root
            self.hashes.append(self.owner.prompt.block_hash(before, self.tokens[start : start + block], start))
        return self.hashes[: tokens // block]


@dataclass(frozen=True, eq=False)
class PrefillChunk:
    """Tokens of one answer that a step computes: those from `start` up to `stop`."""

    answer: AnswerState
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Return whether the answer's next token is chosen after it."""
        return self.stop == len(self.answer.tokens)

    def halves(self) -> tuple[PrefillChunk, PrefillChunk]:
        middle = (self.start + self.stop) // 2
        return PrefillChunk(self.answer, self.start, middle), PrefillChunk(self.answer, middle, self.stop)
