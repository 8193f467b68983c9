"""Scheduler: which tokens of which answers a step computes, and who gets memory for it.

There are no phases: every running answer has tokens still to be computed, one where it grows and many where its prompt
is read. Answers that grow come first, then prompts, oldest first, then admission.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from operator import attrgetter

from lorgnette.infer.engine.answer_state import AnswerState, PrefillChunk, RequestState
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.image_inputs import ImageInputs
from lorgnette.infer.engine.memory.kv_store import CachedDocument, KVStore
from lorgnette.infer.engine.memory.prefix_cache import PrefixCache
from lorgnette.infer.engine.waiting_queue import WaitingQueue

_ORDER = attrgetter("order")


class Scheduler:
    """Running, preempted and waiting answers, and their memory.

    An answer for which memory runs out preempts the newest. A preempted answer keeps its tokens and its generator; it
    is computed again later, before anything that waits is admitted, so that its text stays the same.
    """

    def __init__(self, store: KVStore, config: EngineConfig, images: ImageInputs) -> None:
        self.store, self.config = store, config
        self.budget = config.tokens_per_step
        """Tokens of a step; less after memory ran out."""
        self.running: list[AnswerState] = []
        """Oldest first."""
        self.preempted: list[AnswerState] = []
        """Oldest first."""
        self.waiting = WaitingQueue(config.fair_seconds, lambda one: not images.undecoded(one.prompt.images))
        self.preemptions = 0
        self.prefix_queries = self.prefix_hits = 0
        """Tokens of prompts that were looked up in the prefix cache, and found there."""
        most_bytes = store.total * store.slot_bytes if config.prefix_bytes is None else config.prefix_bytes
        self.prefixes = PrefixCache(store, most_bytes)

    def plan(self, now: float, encode: Callable[[list[AnswerState], int], None]) -> list[PrefillChunk]:
        """Chunks of the next step: single tokens first, in the order of their places in the store.

        encode: sees to the visual tokens that these answers need within so many tokens.
        """
        for answer in [one for one in self.running if one.pending == 1]:
            if answer.document is not None:  # it was not preempted by an older one
                self._make_room(answer)
        growing = sorted([one for one in self.running if one.grows][: self.budget], key=_place)
        rest = self.budget - len(growing)
        reading = [one for one in self.running if not one.grows]
        reading += self._admit(now, rest - sum(one.pending for one in reading))
        if reading:
            encode(reading, rest)
        return [PrefillChunk(one, one.computed, one.computed + 1) for one in growing] + list(
            self._chunks(reading, rest)
        )

    def _chunks(self, reading: list[AnswerState], rest: int) -> Iterator[PrefillChunk]:
        """Shares of the rest, oldest first. A chunk may end within an image; it ends before one that is not encoded."""
        for answer in reading:
            if answer.document is None:
                continue
            start = answer.computed
            stop = min(start + min(answer.pending, rest), answer.first_missing)
            if stop > start:
                rest -= stop - start
                yield PrefillChunk(answer, start, stop)

    def _admit(self, now: float, budget: int) -> list[AnswerState]:
        """Give memory to preempted answers, then to those that wait, while tokens of the step are left for them."""
        admitted: list[AnswerState] = []
        while budget > 0:
            waiting = None if self.preempted else self.waiting.next(now)
            answer = self.preempted[0] if self.preempted else waiting.answers[0] if waiting else None
            if answer is None or not self._has_seat(answer) or not self._join(answer):
                break
            if waiting:
                self.waiting.admit(waiting)
            else:
                del self.preempted[0]
            insort(self.running, answer, key=_ORDER)
            admitted.append(answer)
            budget -= answer.pending
        return admitted

    def _has_seat(self, answer: AnswerState) -> bool:
        """Return whether an answer, and those that will fork from it, may run beside the others."""
        seats = sum(_seats(one) for one in self.running) + _seats(answer)
        return not self.running or seats <= self.config.max_running

    def _join(self, answer: AnswerState) -> bool:
        """Memory for an answer's tokens and some more, with the longest prefix that is known."""
        if not answer.images.take():
            return False
        hashes = answer.block_hashes(self.config.block, len(answer.tokens) - 1)
        holder, blocks = self.prefixes.find(hashes)
        document = self._allocate(answer.first_room(self.config.answer_room), holder, blocks * self.config.block)
        if document is None:
            answer.images.clear()
            return False
        self.prefix_queries += len(answer.tokens)
        self.prefix_hits += document.length
        if not answer.answer.tokens:
            answer.owner.cached_tokens = document.length
        answer.document = document
        return True

    def _allocate(self, room: int, holder: CachedDocument | None, length: int) -> CachedDocument | None:
        """A document with the first `length` tokens of another, if memory for both can be found."""
        while True:
            document = self.store.fork(holder, length, room) if holder else self.store.join(room)
            if document is not None or not self.prefixes.evict(keep=holder):
                break
        if document is None and holder is not None:
            return self._allocate(room, None, 0)
        return document

    def _make_room(self, answer: AnswerState) -> None:
        """Memory for one more token. Ended documents go first, then the newest answers, at last this one itself."""
        assert answer.document is not None
        if answer.document.room > answer.computed:
            return
        needed = min(2 * answer.document.room, answer.owner.prompt.room_needed)
        while not self.store.grow(answer.document, needed):
            if not self.prefixes.evict():
                victim = self.running[-1]
                self._preempt(victim)
                if victim is answer:
                    return

    def _preempt(self, answer: AnswerState) -> None:
        self.preemptions += 1
        self.running.remove(answer)
        assert answer.document is not None
        document, answer.document = answer.document, None
        self.prefixes.remove(document)
        answer.images.clear()
        self.wait_again(answer)

    def wait_again(self, answer: AnswerState) -> None:
        """Let an answer without memory wait to be computed from its tokens."""
        insort(self.preempted, answer, key=_ORDER)

    def advanced(self, answer: AnswerState) -> None:
        """Make known the blocks of an answer whose tokens have been computed, and let go of images that it has read."""
        assert answer.document is not None
        answer.images.advance(answer.computed)
        self.prefixes.add(answer.document, answer.block_hashes(self.config.block, answer.computed))

    def fork(self, first: AnswerState, other: AnswerState) -> None:
        """Let another answer to the same prompt go on from the keys and values of the first."""
        assert first.document is not None
        room = other.first_room(self.config.answer_room)
        other.document = self.store.fork(first.document, len(first.owner.prompt.tokens), room)
        if other.document is None:
            return self.wait_again(other)
        first.images.share(other.images)
        insort(self.running, other, key=_ORDER)

    def end(self, answer: AnswerState) -> None:
        """Take out an answer; its keys and values stay as a prefix for others."""
        if answer.document is not None:
            self.running.remove(answer)
            document, answer.document = answer.document, None
            self.prefixes.retire(document)
        elif answer in self.preempted:
            self.preempted.remove(answer)
        answer.images.clear()

    def remove(self, state: RequestState) -> None:
        """Take out a request wherever it is."""
        if state in self.waiting:
            self.waiting.remove(state)
        for answer in state.answers:
            self.end(answer)


def _seats(answer: AnswerState) -> int:
    """Answers that run once this one has computed its prompt."""
    return len(answer.owner.answers) if not answer.answer.tokens else 1


def _place(answer: AnswerState) -> int:
    return answer.document.places[0] if answer.document is not None else 0
