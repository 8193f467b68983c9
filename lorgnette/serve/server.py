"""The server process: a socket, uvicorn, and an orderly end on SIGTERM and Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.serve.http.guard import ServerState
from lorgnette.serve.http.http_protocol import LimitedProtocol

BROKEN_STATUS = 70
"""Exit status once the engine has failed for good; a supervisor starts the server again."""


class EngineBroken(LorgnetteError):
    """The engine has failed for good."""

    status = BROKEN_STATUS


class Served(Protocol):
    """An application that can be drained, and may break for good."""

    asgi: ASGIApp
    state: ServerState
    broken: asyncio.Event
    failure: str
    """Sentence for people, once it is broken."""

    async def drain(self) -> None:
        """Refuse new requests, and return once those that run have ended."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which drains before it closes its listener: /ready can be asked meanwhile."""

    def __init__(self, app: Served, listener: socket.socket, started: Callable[[], None] | None = None) -> None:
        """started: called once requests are taken."""
        config = uvicorn.Config(
            app.asgi,
            http=LimitedProtocol,
            ws="none",
            loop="asyncio",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self.app, self.listener, self._on_start = app, listener, started
        self.event_loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        self.event_loop = asyncio.get_running_loop()
        self._tasks.append(asyncio.create_task(self._watch_engine()))
        if self.started and self._on_start is not None:
            self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, and end at once at the second."""
        self.stop()

    def stop(self) -> None:
        """Drain, or, if that is under way, end at once. From any thread."""
        if self.app.state.draining or self.event_loop is None or self.event_loop.is_closed():
            self.should_exit = self.force_exit = True
        else:
            self.app.state.draining = True
            self.event_loop.call_soon_threadsafe(self._start_drain)

    def _start_drain(self) -> None:
        self._tasks.append(asyncio.create_task(self._drain()))

    async def _drain(self) -> None:
        await self.app.drain()
        self.should_exit = True

    async def _watch_engine(self) -> None:
        await self.app.broken.wait()
        self.should_exit = True

    def run_here(self) -> None:
        """Serve until the server is told to stop. Raises: EngineBroken."""
        self.run(sockets=[self.listener])
        if self.app.broken.is_set():
            raise EngineBroken(self.app.failure)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: SettingsError if the address is not to be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise SettingsError(f"--host {host} --port {port}: cannot listen there ({said}); choose another") from None


def address_of(listener: socket.socket) -> str:
    """The address of a socket, as a client writes it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
