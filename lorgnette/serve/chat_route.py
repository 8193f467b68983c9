"""`POST /v1/chat/completions` and `POST /tokenize`: from a body to the engine and back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.prompt import prepare
from lorgnette.infer.engine.request import Event, SamplingParams
from lorgnette.infer.engine.request import Request as EngineRequest
from lorgnette.infer.generate import end_tokens, opens_turn
from lorgnette.serve.api.answers import AnswerAssembler, ReplyHead
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.conversation import read_sample, split_of
from lorgnette.serve.api.protocol import ChatRequest, Conversation, parse_body, sampling_values, unknown_keys
from lorgnette.serve.api.replies import Tokenized
from lorgnette.serve.api.token_bytes import TokenBytes
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.engine_thread import AnswerChannel, EngineThread
from lorgnette.serve.grammar import GrammarCompiler
from lorgnette.serve.http.event_stream import ClientGone, EventStream, unless_gone
from lorgnette.serve.http.request_body import BodyReader, HeldBody
from lorgnette.serve.metrics import RequestTimer, ServerMetrics

log = logging.getLogger("lorgnette.serve")

_Asked = TypeVar("_Asked", bound=Conversation)
DECODING_THREADS, FETCHING_THREADS = 2, 16
"""Threads that read images of requests: a slow site must not keep the images of others waiting."""
MOST_NAMED = 100
"""Unknown keys that the log names, each once."""


class ChatRoutes:
    """Routes that ask the engine."""

    def __init__(
        self, config: ServeConfig, engine: Engine, thread: EngineThread, metrics: ServerMetrics, fingerprint: str
    ) -> None:
        self.config, self.thread, self.metrics, self.fingerprint = config, thread, metrics, fingerprint
        self.processor, self.longest = engine.processor, engine.model.config.language.context_length
        self.bodies = BodyReader(config)
        self.token_bytes, self.ends = TokenBytes(engine.processor.tokenizer), end_tokens(engine.processor)
        threads = FETCHING_THREADS if config.allow_image_urls else DECODING_THREADS
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self.grammars = GrammarCompiler(engine.processor, engine.model.config.vocabulary)
        self._named: set[str] = set()

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, at once or as a stream."""
        timer = RequestTimer(self.metrics, time.monotonic())
        try:
            body = await self.bodies.read(request)
        except ClientGone:
            return Response(status_code=499)  # which nobody reads
        exchange = Exchange(body.release, timer)
        try:
            asked, wanted = await self.read(request, body, ChatRequest)
            return await self._answer(request, asked, wanted, exchange)
        except ClientGone:
            return Response(status_code=499)
        finally:
            if not exchange.streams:
                exchange.end()

    async def tokenize(self, request: Request) -> Response:
        """Write a conversation as token ids, its images as runs of the image token."""
        try:
            body = await self.bodies.read(request)
            try:
                _, wanted = await self.read(request, body, Conversation)
                prompt = await self.thread.call(lambda engine: prepare(wanted, engine.image_cache))
            finally:
                body.release()
        except ClientGone:
            return Response(status_code=499)
        reply = Tokenized(
            count=len(prompt.tokens),
            image_tokens=len(prompt.places),
            max_model_len=self.longest,
            tokens=list(prompt.tokens),
        )
        return JSONResponse(reply.model_dump())

    async def read(self, request: Request, body: HeldBody, kind: type[_Asked]) -> tuple[_Asked, EngineRequest]:
        """Parse a body: its fields without the messages, and the request for the engine that is made of them."""
        asked: _Asked = parse_body(kind, body.take())
        self._check(asked)
        wanted = await unless_gone(request.receive, self._engine_request(request, asked))
        return asked.model_copy(update={"messages": []}), wanted

    def _check(self, asked: Conversation) -> None:
        """Refuse another model, and unknown keys where the server is strict. Raises: ApiError."""
        if asked.model not in (None, self.config.name):
            said = f"model: this server has {self.config.name} alone; ask for it, or GET /v1/models"
            raise ApiError(404, said, param="model", code="model_not_found")
        for name in unknown_keys(asked):
            shown = name if name.isidentifier() and name.isascii() and len(name) <= 40 else "(no identifier)"
            if self.config.strict:
                raise ApiError(400, f"{shown}: no such field; leave it out", param=shown, code="unknown_parameter")
            if shown not in self._named and len(self._named) < MOST_NAMED:
                self._named.add(shown)
                log.warning("requests have the unknown key %s, which is ignored", shown)

    async def _engine_request(self, request: Request, asked: Conversation) -> EngineRequest:
        loop = asyncio.get_running_loop()
        split = split_of(asked)
        chat = asked if isinstance(asked, ChatRequest) else None
        constraint = None
        if chat is not None and chat.response_format is not None:
            constraint = await loop.run_in_executor(self.pool, self.grammars.compile, chat.response_format)
        sample = await loop.run_in_executor(self.pool, read_sample, asked, self.config, self.processor, self.longest)
        key = request.state.key
        return EngineRequest(
            f"chatcmpl-{secrets.token_hex(12)}",
            sample,
            SamplingParams(**sampling_values(chat)) if chat else SamplingParams(),
            key=key,
            salt=f"{key}/{chat.cache_salt}" if chat is not None and chat.cache_salt is not None else None,
            split=split,
            constraint=constraint,
        )

    async def _answer(
        self, request: Request, asked: ChatRequest, wanted: EngineRequest, exchange: Exchange
    ) -> Response:
        if self.config.log_content:
            log.info("%s asks: %r", wanted.id, wanted.sample.text)
        answer = AnswerAssembler(
            ReplyHead(wanted.id, int(time.time()), asked.model or self.config.name, self.fingerprint),
            wanted.params.n,
            self.token_bytes,
            self.ends,
            logprobs=wanted.params.logprobs is not None,
            chat=opens_turn(wanted.sample),
        )
        exchange.at_end(lambda: self.thread.close_channel(wanted.id))
        exchange.at_end(lambda: self._log(wanted, answer))
        _, channel = await unless_gone(request.receive, self.thread.open(wanted))
        timed = TimedChannel(channel, exchange.timer)
        response: Response
        if asked.stream:
            first = await unless_gone(request.receive, timed.read(self.config.ping_seconds))
            _raise_failure(first)
            options = asked.stream_options
            with_usage = options is not None and bool(options.include_usage)
            times = self.config.ping_seconds, self.config.unread_seconds
            response = EventStream(timed, answer, first, exchange.end, with_usage=with_usage, times=times)
            exchange.streams = True
        else:
            await unless_gone(request.receive, _collect(timed, answer))
            response = JSONResponse(answer.completion().model_dump(exclude_unset=True))
        response.headers["x-lorgnette-seed"] = str(wanted.params.seed)
        return response

    def _log(self, wanted: EngineRequest, answer: AnswerAssembler) -> None:
        used = answer.token_usage()
        log.info("%s has %d tokens, and %d in answers", wanted.id, used.prompt_tokens, used.completion_tokens)
        if self.config.log_content:
            log.info("%s is answered: %r", wanted.id, [choice.whole for choice in answer.choices])


class Exchange:
    """One request and its answer, and what is to be done at its end."""

    def __init__(self, release: Callable[[], None], timer: RequestTimer) -> None:
        self.timer, self.streams = timer, False
        self._last = [release]

    def at_end(self, function: Callable[[], None]) -> None:
        """Have a function called at the end."""
        self._last.append(function)

    def end(self) -> None:
        """Do it all, once."""
        last, self._last = self._last, []
        for function in reversed(last):
            function()
        self.timer.end()


class TimedChannel:
    """A channel whose reads are timed."""

    def __init__(self, channel: AnswerChannel, timer: RequestTimer) -> None:
        self.channel, self.timer = channel, timer

    async def read(self, seconds: float | None = None) -> list[Event]:
        """As `AnswerChannel.read`."""
        events = await self.channel.read(seconds)
        if any(event.token is not None for event in events):
            self.timer.token()
        return events


async def _collect(channel: TimedChannel, answer: AnswerAssembler) -> None:
    while not answer.is_complete:
        answer.take(await channel.read())


def _raise_failure(events: list[Event]) -> None:
    """Raise the error of a request that failed before its first token: its status can still be told."""
    for event in events:
        if event.token is not None:
            return
        if event.error is not None:
            raise event.error
