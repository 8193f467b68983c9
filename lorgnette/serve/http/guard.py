"""Checks that every request passes first: id, Host header, key, number of open requests; and what is logged of it.

Responses get the headers that keep a browser from doing more with them than showing them.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorgnette.serve.api.api_errors import ApiError, as_api_error, places, stopping
from lorgnette.serve.config import LOOPBACK, ServeConfig
from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.serve.page_files import PAGE_FILES

log = logging.getLogger("lorgnette.serve")

OPEN_ROUTES = ("/health", "/ready", *PAGE_FILES)
"""Routes without a key: for those who watch over the server, and the files of the page, whose calls want one."""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class ServerState:
    """State of a server that requests read."""

    draining: bool = False
    open: int = 0
    """Requests that are being answered."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Refused requests by status."""


class Guard:
    """ASGI application around another one."""

    def __init__(self, app: ASGIApp, config: ServeConfig, keys: ApiKeys, state: ServerState) -> None:
        self.app, self.config, self.keys, self.state = app, config, keys, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
        scope["state"] = {**scope.get("state", {}), "request_id": name}
        response = _Response(send, name)
        began = time.monotonic()
        self.state.open += 1
        try:
            scope["state"]["key"] = self._admit(scope["path"], headers)
            await self.app(scope, receive, response.send)
        except Exception as error:  # a fault of the server's own, or a refusal
            if not isinstance(error, ApiError):
                log.error("request %s failed: %s\n%s", name, type(error).__name__, places(error))
            if not response.started:
                await as_api_error(error).response()(scope, receive, response.send)
        finally:
            self.state.open -= 1
            self._note(scope, name, response.status, time.monotonic() - began)

    def _admit(self, path: str, headers: Headers) -> str:
        """A name for whoever asks. Raises: ApiError."""
        self._check_host(headers.get("host", ""))
        if path in OPEN_ROUTES:
            return ""
        owner = self.keys.owner(headers.get("authorization", ""))
        if owner is None:
            raise ApiError(401, "no valid API key; send it as `Authorization: Bearer KEY`", code="invalid_api_key")
        if self.state.draining:
            raise stopping()
        if self.state.open > self.config.max_open:
            raise ApiError(429, f"{self.config.max_open} requests are open already; try again later", code="too_many")
        return owner

    def _check_host(self, host: str) -> None:
        """Refuse another site's name: a page of it would reach a server of this machine through its own name."""
        name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
        name = name.strip("[]").lower()
        allowed = {one.lower() for one in self.config.allow_hosts}
        if "*" in allowed or name in allowed or name in LOOPBACK or name == self.config.host.lower():
            return
        if not self.config.is_loopback and (name == socket.gethostname().lower() or _is_address(name)):
            return
        raise ApiError(400, "the Host header names another server; allow its name with --allow-host", code="wrong_host")

    def _note(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        if status >= 400:
            self.state.refusals[str(status)] = self.state.refusals.get(str(status), 0) + 1
        route = getattr(scope.get("route"), "path", "no route")
        level = logging.DEBUG if route in OPEN_ROUTES and status < 400 else logging.INFO  # asked every second or so
        log.log(level, "%s %s %s %d %.0f ms", name, scope["method"], route, status, 1000 * seconds)


class _Response:
    """A response on its way: its headers are completed, and its status is known afterwards."""

    def __init__(self, send: Send, name: str) -> None:
        self._send, self._name = send, name
        self.status = 499  # the client went away without an answer
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._name
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False
