"""Server-sent events: the chunks of an answer as a response that ends the moment its reader is gone.

Errors midway are an event `{"error": ...}`, after which the stream closes without `[DONE]`: clients raise on it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import pydantic
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from lorgnette.infer.engine.request import Event
from lorgnette.serve.api.answers import AnswerAssembler, UsageForm
from lorgnette.serve.api.api_errors import as_api_error

log = logging.getLogger("lorgnette.serve")
DONE, PING = b"data: [DONE]\n\n", b": ping\n\n"
_Result = TypeVar("_Result")


class EventReader(Protocol):
    """Source of an answer's events."""

    async def read(self, seconds: float | None = None) -> list[Event]:
        """Events that have come; none if `seconds` pass without any."""


class ClientGone(Exception):  # it is no error of anybody's
    """The client has closed the connection."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of some work, which is cancelled when the client closes the connection.

    Raises: ClientGone, and what the work raises.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_until_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _until_disconnected(receive: Receive) -> None:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return


def as_event(value: pydantic.BaseModel) -> bytes:
    """One event of a stream."""
    return b"data: " + value.model_dump_json(exclude_unset=True).encode() + b"\n\n"


class EventStream(Response):
    """A streamed answer."""

    media_type = "text/event-stream"

    def __init__(
        self,
        channel: EventReader,
        answer: AnswerAssembler,
        first: Sequence[Event],
        close: Callable[[], None],
        *,
        with_usage: bool,
        times: tuple[float, float],
    ) -> None:
        """first: events that have come already. close: called at the end, whatever it was.

        times: seconds after which a silent stream is kept open by a comment, and for which it may stay unread.
        """
        self.channel, self.answer, self.first, self.close = channel, answer, first, close
        self.with_usage, (self.ping_seconds, self.unread_seconds) = with_usage, times
        self.status_code, self.background, self.body = 200, None, b""
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends, its client is gone, or it is not read."""
        try:
            await unless_gone(receive, self._send_all(send))
        except (ClientGone, OSError):
            log.info("a client has gone before the end of its stream")
        except TimeoutError:
            log.info("a stream was not read for %g seconds, and is closed", self.unread_seconds)
        finally:
            self.close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self._parts():
            async with asyncio.timeout(self.unread_seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self) -> AsyncIterator[bytes]:
        usage: UsageForm = "null" if self.with_usage else "absent"
        for choice in self.answer.opening():
            yield as_event(self.answer.wrap([choice], usage))
        events = list(self.first)
        while True:
            try:
                for choice in self.answer.chunks(events):
                    yield as_event(self.answer.wrap([choice], usage))
            except Exception as error:  # of this request alone; told to its client
                body = as_api_error(error).body()
                yield b"data: " + json.dumps(body).encode() + b"\n\n"
                return
            if self.answer.is_complete:
                break
            events = await self.channel.read(self.ping_seconds)
            if not events:
                yield PING
        if self.with_usage:
            yield as_event(self.answer.wrap([], "given"))
        yield DONE
