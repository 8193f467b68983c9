"""uvicorn's HTTP protocol with limits on headers: their bytes, and the time in which they arrive."""

from __future__ import annotations

import asyncio
import json
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lorgnette.serve.api.api_errors import ApiError

MAX_HEADER_BYTES = 64 * 2**10
HEADER_SECONDS = 10.0


class LimitedProtocol(HttpToolsProtocol):
    """HTTP/1.1 for strangers. A connection whose headers are too long or too slow is closed."""

    header_seconds = HEADER_SECONDS
    _header_bytes = 0
    _headers_done = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self.access_log = False  # paths are a stranger's words; the guard logs routes
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._headers_done and self._timer is None and not self._is_answering():
            self._await_headers()  # the next request of a connection that is kept
        super().data_received(data)
        if not self._headers_done:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response(f"the headers exceed {MAX_HEADER_BYTES >> 10} KiB; send fewer")

    def on_headers_complete(self) -> None:
        self._headers_done = True
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the shape of all other errors."""
        body = json.dumps(ApiError(400, msg).body()).encode()
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-should-retry: false\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._headers_done, self._header_bytes = False, 0
        self._timer = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self._headers_done and not self.transport.is_closing():
            self.transport.close()
