"""The engine: requests that come and go at any time share the model's steps (continuous batching).

It is synchronous, without threads, network or clock: a function of its calls alone. `generate` is the oracle of its
answers, and does not share its code for batches and memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from lorgnette.errors import DataError, LorgnetteError, PromptTooLong, SettingsError
from lorgnette.infer.engine.advance import advance
from lorgnette.infer.engine.answer_images import AnswerImages
from lorgnette.infer.engine.answer_state import AnswerState, RequestState
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.image_inputs import image_inputs
from lorgnette.infer.engine.memory.kv_store import KVStore, SlabStore
from lorgnette.infer.engine.model_runner import Runner
from lorgnette.infer.engine.prompt import Prompt, prepare
from lorgnette.infer.engine.request import ChosenToken, Event, QueueFull, QueueTimeout, Request
from lorgnette.infer.engine.scheduler import Scheduler
from lorgnette.infer.engine.stats import EngineCounts, EngineStats, collect_stats
from lorgnette.infer.engine.token_sampler import TokenSampler
from lorgnette.infer.generate import GrowingAnswer, evaluating, opens_turn
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.inputs.processor import Processor
from lorgnette.model.inference.prepared_layers import prepare as prepare_decoder
from lorgnette.model.ops.allocator import keep_freed_memory
from lorgnette.model.vlm import VLM


class Engine:
    """Answers requests, up to `max_running` at a time.

    `add` takes a request, `step` computes some tokens of each and returns what is new, `abort` drops a request at once.
    Weights must not change meanwhile; `clear_caches` forgets what they have made.
    Time is given with each call, in seconds from any beginning; it decides on fairness and on waiting too long.
    """

    def __init__(
        self,
        model: VLM,
        processor: Processor,
        config: EngineConfig | None = None,
        *,
        store: KVStore | None = None,
    ) -> None:
        """store: keys and values, a `SlabStore` of `config.kv_bytes` if not given.

        Raises: SettingsError for memory for no document at all, or for images that the model's fusion does not keep.
        """
        config = config or EngineConfig()
        self.model, self.processor, self.config = model, processor, config
        self.store = store or SlabStore(model.config.language, config.kv_bytes, model.device, model.dtype)
        if not self.store.longest:
            raise SettingsError(
                f"kv_bytes {config.kv_bytes:,} hold no document; a token takes {self.store.slot_bytes:,}"
            )
        self.image_cache = ImageFeatureCache(model, processor, keep_bytes=config.image_bytes)
        self.images = image_inputs(model, self.image_cache, config)
        self.decoded = self.images.decoded
        self.scheduler = Scheduler(self.store, config, self.images)
        self.runner = Runner(model, self.store, self.images, self.scheduler, config.patches_per_step)
        if model.device.type == "cpu":
            keep_freed_memory()
        prepare_decoder(model.language)
        self._requests: dict[str, RequestState] = {}
        self.counts, self._arrivals = EngineCounts(), 0

    def add(self, request: Request, now: float = 0.0) -> Prompt:
        """Take a request in. Its images are decoded later: in a step, or by whoever decodes for this engine.

        Raises: QueueFull; DataError for an id that is in use, or a prompt that has no room among the model's positions
        or in memory; ImageError naming the image that cannot be read.
        """
        if request.id in self._requests:
            raise DataError(f"request {request.id!r} is being answered already; give each an id of its own")
        if len(self.scheduler.waiting) >= self.config.max_waiting:
            self.counts.refusals += 1
            raise QueueFull(f"{self.config.max_waiting} requests are waiting already; try again later")
        prompt = prepare(request, self.image_cache)
        if prompt.room_needed > self.store.longest:
            raise PromptTooLong(
                f"{request.sample.name}: prompt and answer need memory for {prompt.room_needed:,} tokens, and the"
                f" engine has it for {self.store.longest:,}; lower max_tokens, or raise kv_bytes"
            )
        self.images.check(prompt, request.sample.name)
        root = f"{self.config.weights}\0{request.tenant}".encode()  # so that tenants share nothing
        state = RequestState(request, prompt, self._arrivals, now, root)
        state.answers = [self._answer(state, choice) for choice in range(prompt.params.n)]
        self._requests[request.id] = state
        self.scheduler.waiting.add(state)
        self.decoded.enter(prompt.images)
        self._arrivals += 1
        self.counts.prompt_tokens += len(prompt.tokens)
        self.counts.image_tokens += len(prompt.places)
        return prompt

    def _answer(self, state: RequestState, choice: int) -> AnswerState:
        prompt, request = state.prompt, state.request
        constraint = request.constraint.copy() if request.constraint is not None else None
        sampler = TokenSampler(prompt.params, prompt.tokens, choice, self.processor, prompt.most, constraint)
        chat = opens_turn(request.sample)
        answer = GrowingAnswer(self.processor, prompt.params, choice, len(prompt.tokens), chat, prompt.most)
        answer.ends = frozenset() if prompt.params.ignore_eos else answer.ends
        return AnswerState(state, choice, sampler, answer, AnswerImages(prompt, self.images))

    def abort(self, request: str) -> bool:
        """Drop a request and free its memory; False if it has ended, or never came."""
        state = self._requests.pop(request, None)
        if state is not None:
            self.counts.aborts += 1
            self._remove(state)
        return state is not None

    @property
    def requests(self) -> tuple[str, ...]:
        """Ids of the requests that are being answered or wait."""
        return tuple(self._requests)

    @property
    def is_idle(self) -> bool:
        """Return whether no request is being answered or waits."""
        return not self._requests

    @torch.no_grad()
    def step(self, now: float = 0.0) -> list[Event]:
        """Compute up to `tokens_per_step` tokens; what is new of each answer that got one, and what failed."""
        events = list(self._expired(now))
        if self.is_idle:
            return events
        self.counts.steps += 1
        # the walk through all modules is left out where nothing is to be changed
        with evaluating(self.model) if self.model.training else contextlib.nullcontext():
            chunks = self.scheduler.plan(now, self.runner.encode)
            failed, self.runner.failed = self.runner.failed, []
            for answer, error in failed:
                events += self._fail(answer.owner, error)
            ran = self.runner.run([chunk for chunk in chunks if chunk.answer.owner.request.id in self._requests])
            for answer, token in advance(self.scheduler, ran):
                events += self._grown(answer, token)
            if not ran and not failed:
                self.decoded.stall()
        return events

    def _expired(self, now: float) -> Iterator[Event]:
        for state in [one for one in self.scheduler.waiting if now - one.since > self.config.queue_seconds]:
            self.counts.refusals += 1
            seconds = f"{self.config.queue_seconds:g}"
            yield from self._fail(state, QueueTimeout(f"not admitted within {seconds} seconds; try again later"))

    def _grown(self, answer: AnswerState, token: ChosenToken | LorgnetteError) -> list[Event]:
        request = answer.owner.request.id
        if request not in self._requests:  # another answer to it failed in this step
            return []
        if isinstance(token, LorgnetteError):
            return self._fail(answer.owner, token)
        self.counts.generation_tokens += 1
        constraint = answer.sampler.constraint
        pieces = list(answer.answer.push(token.id, last=constraint is not None and constraint.finished))
        text, generation = "".join(piece.text for piece in pieces), answer.answer.generation
        if generation is None:
            return [Event(request, answer.choice, token, text)]
        self.scheduler.end(answer)
        if all(one.answer.generation is not None for one in answer.owner.answers):
            del self._requests[request]
            self.decoded.leave(answer.owner.prompt.images)
        usage = answer.owner.usage(self.image_cache)
        return [Event(request, answer.choice, token, text, generation, usage)]

    def _fail(self, state: RequestState, error: LorgnetteError) -> list[Event]:
        """End all answers to a request."""
        if self._requests.pop(state.request.id, None) is None:
            return []
        self._remove(state)
        return [Event(state.request.id, error=error)]

    def _remove(self, state: RequestState) -> None:
        self.scheduler.remove(state)
        self.decoded.leave(state.prompt.images)

    def clear_caches(self) -> None:
        """Forget visual tokens and prefixes that nobody is using."""
        self.image_cache.clear()
        self.scheduler.prefixes.clear()

    def stats(self) -> EngineStats:
        """Counters since the start, and what there is now."""
        return collect_stats(self.scheduler, self.runner, self.image_cache, self.counts)
