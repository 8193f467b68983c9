"""The thread that drives the engine. asyncio asks it by calls that run between two steps, and hears of it by channels.

The engine itself has no lock: whatever touches it runs in this one thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from lorgnette.errors import LorgnetteError
from lorgnette.infer.decoding_pool import DecodingPool
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.prompt import Prompt
from lorgnette.infer.engine.request import EngineFault, Event, Request
from lorgnette.serve.api.api_errors import ApiError, engine_down, places

log = logging.getLogger("lorgnette.serve")

MOST_UNREAD = 4096
"""Events that a channel holds unread; beyond them its request is dropped."""
MOST_FAULTS = 3
"""Steps that fail as a whole, rather than for one request, before the engine is given up."""
DECODING_SECONDS = 1.0
"""Time for which the engine stands still, at most, while all that it could do waits for images to be decoded."""
STUCK_SECONDS = 300.0
"""A step that takes longer is called stuck."""
_Result = TypeVar("_Result")


class StepObserver(Protocol):
    """Hears of requests and steps, in the engine's thread."""

    def added(self, request: str, now: float) -> None:
        """A request was given to the engine."""

    def stepped(self, seconds: float, engine: Engine) -> None:
        """One step has been computed."""


class AnswerChannel:
    """Events of one request on their way to its client, bounded, for use in the event loop alone."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return len(self._events) >= MOST_UNREAD

    def push(self, event: Event) -> None:
        """Append an event."""
        self._events.append(event)
        self._ready.set()

    async def read(self, seconds: float | None = None) -> list[Event]:
        """All events that have come, at least one; none if `seconds` pass without any."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return []
        self._ready.clear()
        events = list(self._events)
        self._events.clear()
        return events


class EngineThread:
    """Runs an engine in a thread of its own. All methods are for the event loop in which `start` was called."""

    def __init__(self, engine: Engine, observer: StepObserver, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._observer, self._clock = engine, observer, clock
        self._wake = threading.Condition()
        self._pool = DecodingPool(engine, lambda: self._post(_look_again))
        self._calls: deque[Callable[[Engine], object]] = deque()
        self._closing = False
        self._faults = 0
        self._step_began: float | None = None
        self._channels: dict[str, AnswerChannel] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.broken = asyncio.Event()
        """Set once the engine has failed for good."""

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Stop the thread after its present step."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._pool.close()

    @property
    def is_healthy(self) -> bool:
        """Return whether the engine steps, or has nothing to do."""
        began = self._step_began
        stuck = began is not None and self._clock() - began > STUCK_SECONDS
        return self._thread.is_alive() and not self.broken.is_set() and not stuck

    @property
    def open_requests(self) -> tuple[str, ...]:
        """Ids of the requests whose answers are on their way."""
        return tuple(self._channels)

    async def call(self, function: Callable[[Engine], _Result]) -> _Result:
        """Call a function of the engine between two steps; what it raises is raised here."""
        if self.broken.is_set() or self._loop is None:
            raise engine_down()
        future: asyncio.Future[_Result] = self._loop.create_future()
        self._post(lambda engine: self._answer(future, function, engine))
        return await future

    async def open(self, request: Request) -> tuple[Prompt, AnswerChannel]:
        """Give a request to the engine. Raises: what `Engine.add` raises."""
        channel = self._channels[request.id] = AnswerChannel()
        try:
            return await self.call(lambda engine: self._add(engine, request)), channel
        except BaseException:
            self.close_channel(request.id)  # also when its client is gone meanwhile
            raise

    def _add(self, engine: Engine, request: Request) -> Prompt:
        now = self._clock()
        prompt = engine.add(request, now)
        self._observer.added(request.id, now)
        return prompt

    def close_channel(self, request: str) -> None:
        """Forget a request; the engine drops it if it has not ended."""
        if self._channels.pop(request, None) is not None and not self.broken.is_set():
            self._post(lambda engine: engine.abort(request))

    def fail_all(self, error: LorgnetteError) -> None:
        """End every answer with an error."""
        for name, channel in list(self._channels.items()):
            channel.push(Event(name, error=error))

    def _post(self, call: Callable[[Engine], object]) -> None:
        with self._wake:
            self._calls.append(call)
            self._wake.notify()

    def _answer(self, future: asyncio.Future[Any], function: Callable[[Engine], Any], engine: Engine) -> None:
        result, error = None, None
        try:
            if self.broken.is_set():
                raise engine_down()
            result = function(engine)
        except Exception as problem:  # raised again where the call was made
            error = problem
        self._tell(lambda: _settle(future, result, error))

    def _tell(self, function: Callable[[], None]) -> None:
        """Call a function in the event loop, if that still runs."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: nobody listens any more
            log.debug("the event loop is closed")

    def _run(self) -> None:
        while True:
            with self._wake:
                # while images are decoded, a step now and then gives up what has waited for too long
                self._wake.wait_for(self._has_work, DECODING_SECONDS if not self._engine.is_idle else None)
                calls, self._calls = self._calls, deque()
                closing = self._closing
            for call in calls:
                call(self._engine)
            if closing:
                return
            self._pool.exchange()
            if not self._engine.is_idle and not self._step():
                return

    def _has_work(self) -> bool:
        waits = self._engine.is_idle or self._engine.decoded.is_awaited
        return bool(self._calls) or self._closing or not waits

    def _step(self) -> bool:
        """One step; False once the engine has failed too often."""
        began = self._step_began = self._clock()
        try:
            events: Sequence[Event] = self._engine.step(began)
            self._observer.stepped(self._clock() - began, self._engine)
        except Exception as error:  # no request's own: those are events
            self._faults += 1
            log.error("a step of the engine failed: %s\n%s", type(error).__name__, places(error))
            events, in_order = _give_up_requests(self._engine, error)
            self._faults = self._faults if in_order else MOST_FAULTS
        self._step_began = None
        if events:
            self._tell(lambda: self._dispatch(events))
        if self._faults >= MOST_FAULTS:
            self._tell(self._break)
            return False
        return True

    def _dispatch(self, events: Sequence[Event]) -> None:
        """Hand events to the channels of their requests. In the event loop."""
        for event in events:
            channel = self._channels.get(event.request)
            if channel is None:
                continue
            channel.push(event)
            if channel.is_full:
                self.close_channel(event.request)
                channel.push(Event(event.request, error=ApiError(408, "the answer was not read in time")))

    def _break(self) -> None:
        self.broken.set()
        self.fail_all(engine_down())
        with self._wake:
            calls, self._calls = self._calls, deque()
        for call in calls:
            call(self._engine)  # its thread has ended


def _give_up_requests(engine: Engine, error: Exception) -> tuple[list[Event], bool]:
    """Events that end all requests after a step that failed as a whole; False if the engine is not in order now."""
    names, in_order = engine.requests, True
    try:
        for name in names:
            engine.abort(name)
        engine.clear_caches()
    except Exception as problem:
        log.error("the engine cannot be put in order: %s\n%s", type(problem).__name__, places(problem))
        in_order = False
    fault = EngineFault(f"a step failed ({type(error).__name__})")
    return [Event(name, error=fault) for name in names], in_order


def _look_again(_: Engine) -> None:
    """An image has been decoded: what the engine does next may have changed."""


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():  # whoever waited is gone
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
