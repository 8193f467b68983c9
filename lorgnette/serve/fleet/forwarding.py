"""Answers of workers on their way to clients: streams event by event, and what is said when a worker is lost midway."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import httpx2
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.http.event_stream import ClientGone, unless_gone

log = logging.getLogger("lorgnette.serve")

OWN_HEADERS = ("connection", "keep-alive", "transfer-encoding", "date", "server", "x-request-id")
"""Headers of a worker's answer that are of its connection alone, or written again by the router."""


def worker_lost() -> ApiError:
    """The error of an answer whose worker has ended."""
    return ApiError(503, "the worker that was answering has ended; send the request again", code="worker_lost")


def given_headers(reply: httpx2.Response) -> list[tuple[bytes, bytes]]:
    """Headers of a worker's answer that its client gets."""
    pairs = ((name.lower(), value) for name, value in reply.headers.raw)
    return [(name, value) for name, value in pairs if name.decode("latin-1") not in OWN_HEADERS]


def is_stream(reply: httpx2.Response) -> bool:
    """Return whether an answer comes in events."""
    return reply.headers.get("content-type", "").startswith("text/event-stream")


class ForwardedStream(Response):
    """A stream of a worker's, passed on as it comes. It ends when its client is gone, and the worker is told."""

    def __init__(self, reply: httpx2.Response, close: Callable[[], None], unread_seconds: float) -> None:
        """close: called at the end, whatever it was."""
        self.reply, self.close, self.unread_seconds = reply, close, unread_seconds
        self.status_code, self.background, self.body = reply.status_code, None, b""
        self.raw_headers = given_headers(reply)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the stream on until it ends, its client is gone, or it is not read."""
        try:
            await unless_gone(receive, self._send_all(send))
        except (ClientGone, OSError):
            log.info("a client has gone before the end of its stream")
        except TimeoutError:
            log.info("a stream was not read for %g seconds, and is closed", self.unread_seconds)
        finally:
            self.close()
            await self.reply.aclose()  # which closes the connection, so that the worker drops the answer

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for part in self.reply.aiter_raw():
                await self._send_part(send, part)
        except httpx2.HTTPError:
            log.error("a worker was lost in the middle of a stream")
            await self._send_part(send, b"data: " + json.dumps(worker_lost().body()).encode() + b"\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, send: Send, part: bytes) -> None:
        async with asyncio.timeout(self.unread_seconds):
            await send({"type": "http.response.body", "body": part, "more_body": True})
