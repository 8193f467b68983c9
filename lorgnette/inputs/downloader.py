"""The one downloader: http(s) addresses that a policy allows, within a limit of bytes and one deadline for all of it.

Names are resolved once, and the connection goes to the very address that was checked: a name that means another
address a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorgnette.inputs.access import (
    MOST_BYTES,
    OWN_HAND,
    SECONDS,
    Access,
    AccessError,
    ByteBudget,
    time_left,
)
from lorgnette.untrusted import quoted, reason_of

LARGE = 4 * 2**20
"""Bytes of an answer beyond which it counts in a budget that threads share."""
MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an exchange. deadline: a time of `time.monotonic`; seconds: what it was made of, for messages."""

    deadline: float
    seconds: float = SECONDS
    most_bytes: int = MOST_BYTES
    budget: ByteBudget | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a server. headers: their names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


def fetch(
    url: str,
    access: Access,
    seconds: float = SECONDS,
    most_bytes: int = MOST_BYTES,
    budget: ByteBudget | None = None,
    *,
    redirects: int = MOST_REDIRECTS,
) -> bytes:
    """The bytes behind an http(s) address, redirects followed, each of them checked as the first address is.

    seconds: for the whole of it. budget: shared with other threads; an answer beyond `LARGE` waits for room in it.
    redirects: how many are followed. Raises: AccessError saying why there are none.
    """
    limits = Limits(time.monotonic() + seconds, seconds, most_bytes, budget)
    for _ in range(redirects + 1):
        reply = exchange(url, access, limits, skip=REDIRECTS)
        if reply.status in REDIRECTS:
            try:
                url = urllib.parse.urljoin(url, reply.headers.get("location", ""))
            except ValueError as error:
                raise AccessError(f"is redirected to no address ({error})") from None
        elif 200 <= reply.status < 300:
            return reply.content
        else:
            said = f"the server answers {reply.status} {quoted(reply.reason, 80)}"
            raise AccessError(said, passing=reply.status in BUSY)
    raise AccessError(f"is redirected more than {redirects} times")


def exchange(
    url: str,
    access: Access,
    limits: Limits,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    skip: frozenset[int] = frozenset(),
) -> Reply:
    """One request and its answer within the limits. No redirect is followed.

    body: makes it a POST. skip: statuses whose bodies are not read. Raises: AccessError.
    """
    try:
        with _Connection(url, limits.deadline) as connection:
            target = connection.open(access)
            about = {"User-Agent": "lorgnette", "Connection": "close", **(headers or {})}
            connection.request("GET" if body is None else "POST", target, body, about)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.headers.items()}
            content = b"" if response.status in skip else _read_body(response, limits)
            return Reply(response.status, response.reason, named, content)
    except AccessError:
        raise
    except TimeoutError:
        raise AccessError(f"takes longer than {limits.seconds:.3g} seconds") from None
    except (OSError, http.client.HTTPException) as error:
        raise AccessError(reason_of(error), passing=not isinstance(error, http.client.InvalidURL)) from None
    except ValueError as error:  # no address at all
        raise AccessError(reason_of(error)) from None


def _read_body(response: http.client.HTTPResponse, limits: Limits) -> bytes:
    too_large = f"exceeds {limits.most_bytes >> 20} MiB"
    if (response.length or 0) > limits.most_bytes:
        raise AccessError(too_large)
    content = bytearray()
    with contextlib.ExitStack() as held:
        budget = limits.budget
        while chunk := response.read1(65536):
            content += chunk
            if len(content) > limits.most_bytes:
                raise AccessError(too_large)
            if budget is not None and len(content) > LARGE:
                held.enter_context(budget.hold(limits.most_bytes, limits.deadline))
                budget = None
        if response.length:
            raise http.client.IncompleteRead(bytes(content), response.length)
        return bytes(content)


def _address(url: str) -> urllib.parse.SplitResult:
    """The parts of an http(s) address. Raises: AccessError, ValueError."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise AccessError(f"{quoted(url)} is not an http or https address")
    if "@" in parts.netloc:
        raise AccessError("an address with a user's name or password is not fetched")
    if not parts.hostname:
        raise AccessError(f"{quoted(url)} names no host")
    return parts


def _proxy(scheme: str, host: str) -> tuple[str, int] | None:
    """Host and port of the proxy that the environment names for this host, if any."""
    named = urllib.request.getproxies().get(scheme)
    if not named or urllib.request.proxy_bypass(host):
        return None
    parts = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc:
        raise AccessError(f"the environment's proxy for {scheme} is of no known kind; use http://HOST:PORT")
    return parts.hostname, parts.port or 80


class _Connection(http.client.HTTPConnection):
    """A connection to an address that the policy allows. Every wait for it ends at one deadline."""

    def __init__(self, url: str, deadline: float) -> None:
        """Raises: AccessError or ValueError for what is no http(s) address."""
        self.parts, self.deadline = _address(url), deadline
        self.tls, self.name = self.parts.scheme == "https", self.parts.hostname or ""
        standard = 443 if self.tls else 80
        super().__init__(f"[{self.name}]" if ":" in self.name else self.name, self.parts.port or standard)
        self.default_port = standard  # the Host header names the port where it is not this one
        self._plain: socket.socket | None = None

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._plain is not None:
            self._plain.close()

    def open(self, access: Access) -> str:
        """Connect to the first address that answers; gives what to ask for. Raises: AccessError, OSError."""
        target = urllib.parse.urlunsplit(("", "", self.parts.path or "/", self.parts.query, ""))
        proxy = _proxy(self.parts.scheme, self.name) if access.proxy else None
        if proxy is None:
            addresses = access.addresses(self.name, self.port, self.deadline)
        else:
            addresses = OWN_HAND.addresses(*proxy, self.deadline)
        self._plain = _connected(addresses, self.deadline)
        self.sock: Any = _Timed(self._plain, self.deadline)
        if proxy is not None and self.tls:
            self._ask_proxy()
        if self.tls:
            self._plain.settimeout(time_left(self.deadline))
            self._plain = ssl.create_default_context().wrap_socket(self._plain, server_hostname=self.name)
            self.sock = _Timed(self._plain, self.deadline)
        return target if proxy is None or self.tls else f"http://{self.parts.netloc}{target}"

    def _ask_proxy(self) -> None:
        """Ask a proxy for a way to the host."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        self.sock.sendall(f"CONNECT {host}:{self.port} HTTP/1.0\r\n\r\n".encode("ascii"))
        with http.client.HTTPResponse(self.sock, method="CONNECT") as answer:
            answer.begin()
            if answer.status != 200:
                raise OSError(f"the proxy answers {answer.status}")

    def connect(self) -> None:
        """Refuse what `http.client` does to a closed connection: it would resolve the name again."""
        raise http.client.NotConnected


class _Timed:
    """A socket as `http.client` uses it. Each read and write may take what is left until the deadline, and no more."""

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain, self._deadline = plain, deadline

    def sendall(self, content: Any) -> None:
        self._plain.settimeout(time_left(self._deadline))
        self._plain.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._plain, self._deadline))

    def close(self) -> None:
        """Leaves the socket open: `http.client` closes it before the body is read. `_Connection` closes it."""


class _Reader(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain, self._deadline = plain, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._plain.settimeout(time_left(self._deadline))
        return self._plain.recv_into(buffer)


def _connected(addresses: list[Any], deadline: float) -> socket.socket:
    """A socket connected to the first address that answers; each has its share of the time left. Raises: OSError."""
    problem: OSError = OSError("no address")
    for number, (family, kind, protocol, _, place) in enumerate(addresses):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(time_left(deadline) / (len(addresses) - number))
            plain.connect(place)
            return plain
        except OSError as error:
            plain.close()
            problem = error
    raise problem
