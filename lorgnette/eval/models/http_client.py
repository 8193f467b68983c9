"""Requests to a server of OpenAI's kind: paced, tried again where that helps, and silent about the key."""

from __future__ import annotations

import email.utils
import functools
import http.client
import json
import logging
import math
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import pydantic

from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.inputs.access import within
from lorgnette.settings import Settings

log = logging.getLogger("lorgnette")

DEFAULT_KEY = "OPENAI_API_KEY"
LONGEST_WAIT = 60.0
"""Seconds to which the wait between attempts grows."""
FIRST_ATTEMPTS = 3
"""Attempts to reach a server that never answered: its address is more likely wrong than it is busy."""
MAX_REPLY_BYTES = 16 * 2**20
"""A reply beyond this is no chat completion."""


class ServerSettings(Settings):
    """Settings of requests to a server."""

    concurrency: int = pydantic.Field(default=8, ge=1, le=1024)
    """Requests in flight at once."""
    per_minute: float | None = pydantic.Field(default=None, gt=0)
    """Most requests a minute, further attempts included; None for no limit."""
    timeout: float = pydantic.Field(default=120.0, gt=0)
    """Seconds for one request."""
    attempts: int = pydantic.Field(default=8, ge=1)
    """Most requests for one answer that fail; those after which the server asks to wait are not counted."""
    patience: float = pydantic.Field(default=900.0, gt=0)
    """Seconds after the first request for an answer in which another one may begin."""
    backoff: float = pydantic.Field(default=1.0, ge=0)
    """Seconds before the second attempt; each further wait is twice as long, up to a minute, and randomly shorter."""
    key_variable: str | None = None
    """Environment variable that holds the key. None: OPENAI_API_KEY, if it is set and cannot be overheard."""


class ServerError(LorgnetteError):
    """A server cannot be reached, or will answer nothing."""


class Declined(Exception):
    """A server refuses one request, and may well answer another. option: the request's key that it complains of."""

    def __init__(self, reason: str, option: str = "") -> None:
        super().__init__(reason)
        self.option = option


class _Trouble(Exception):
    """A failure that another attempt may cure.

    wait: seconds that the server asks for. of_request: whether it may be due to this one request: a server that is
    overloaded, away or slow is not.
    """

    def __init__(self, reason: str, wait: float = 0.0, of_request: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.of_request = wait, of_request


class Client:
    """Posts requests to one address. Threads may share it. The key is read when it is sent, and never kept."""

    def __init__(self, url: str, settings: ServerSettings) -> None:
        """Raises: SettingsError if a variable that the settings name holds no key."""
        self.url, self.settings = url, settings
        self.stopped = threading.Event()
        """Set to give up what waits for another attempt."""
        self._pace = _Pace(settings.per_minute)
        self._reached, self._served = False, 0
        self._variable = settings.key_variable or (DEFAULT_KEY if _private(url) else "")
        if not self._key() and settings.key_variable:
            raise SettingsError(f"the environment variable {settings.key_variable} holds no key; set it")

    def post(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request: an object with a list of `choices`.

        Raises: Declined if the server refuses this request, or fails on it again and again while it answers others;
        ServerError if it cannot be reached or refuses all.
        """
        tries = failures = served = 0
        deadline = math.inf
        while not self._pace.wait(self.stopped):
            deadline = min(deadline, time.monotonic() + self.settings.patience)  # from the first turn on
            try:
                return self._send(request, self.settings.timeout)
            except _Trouble as trouble:
                tries += 1
                failures += not trouble.wait  # a server that asks to wait is well
                wait = max(trouble.wait, self._backoff(failures))
                most = self.settings.attempts if self._reached else min(FIRST_ATTEMPTS, self.settings.attempts)
                served = self._served if tries == 1 else served
                if failures >= most and trouble.of_request and self._served > served:  # it would end every evaluation
                    raise Declined(f"{trouble} (attempt {tries}, while others were answered)") from None
                if failures >= most or time.monotonic() + wait > deadline:
                    asked = f", and it asks to wait {trouble.wait:.0f} seconds" if trouble.wait else ""
                    raise ServerError(f"{self.url}: {trouble} (attempt {tries}{asked}); {_ADVICE}") from None
                (log.warning if wait > 10 else log.info)("%s: %s; again in %.0f seconds", self.url, trouble, wait)
                if trouble.wait:
                    self._pace.hold(trouble.wait)
            self.stopped.wait(wait)
        raise ServerError(f"{self.url}: stopped")

    def _backoff(self, failures: int) -> float:
        return min(LONGEST_WAIT, self.settings.backoff * 2 ** (failures - 1)) * random.uniform(0.5, 1)

    def _key(self) -> str:
        """Raises: SettingsError for one that no header can hold. http.client would say so too, and show it."""
        key = os.environ.get(self._variable, "").strip() if self._variable else ""
        if not (key.isascii() and key.isprintable()):
            raise SettingsError(f"the key in {self._variable} has characters that no key has; set it again")
        return key

    def _send(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        key = self._key()
        sent = {"Content-Type": "application/json", "User-Agent": "lorgnette"}
        sent |= {"Authorization": f"Bearer {key}"} if key else {}
        message = urllib.request.Request(self.url, json.dumps(request).encode(), sent)
        end = time.monotonic() + seconds
        try:
            # `timeout` starts again at each byte of the headers; `within` counts all of them
            with within(seconds, functools.partial(_OPENER.open, message, timeout=seconds)) as response:
                status, headers, content = 200, response.headers, _read(response, end, seconds)
        except urllib.error.HTTPError as error:
            with error:
                status, headers, content = error.code, error.headers, _read(error, end, seconds)
        except TimeoutError:
            raise _Trouble(f"no answer within {seconds:.3g} seconds") from None
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                reason = f"no answer within {seconds:.3g} seconds"
            raise _Trouble(_without(key, f"cannot be reached ({reason})")) from None
        self._reached = True
        reply = _without(key, _parsed(content, headers.get_content_charset()))
        told = _without(key, {name.lower(): value for name, value in headers.items()})
        if status == 200 and isinstance(reply, dict):
            choices = reply.get("choices")
            if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
                self._served += 1
                return reply
            code = reply["error"].get("code") if isinstance(reply.get("error"), dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else status
        raise self._refusal(status, told, reply)

    def _refusal(self, status: int, told: Mapping[str, str], reply: Any) -> Exception:
        """Interpret a reply without an answer. told: its headers, their names in lower case."""
        said, option, code = _complaint(reply)
        if status == 200:
            return _Trouble(f"its reply is not a chat completion: {said}", of_request=True)
        if (status in (408, 409, 425, 429) or status >= 500) and code != "insufficient_quota":
            wait = _retry_after(told.get("retry-after", ""))
            return _Trouble(f"status {status}: {said}", wait, of_request=status == 500 and not wait)
        if status in (401, 403) and not self._served:
            hint = (
                self._variable or "--key-variable (no key goes to another machine over plain http unless you name one)"
            )
            return ServerError(f"{self.url}: the key is not accepted (status {status}: {said}); set {hint}")
        if status < 400:
            where = told.get("location", "elsewhere")
            return ServerError(f"{self.url}: sends us to {where}; give that address")
        if status in (401, 402, 404, 405, 429):
            return ServerError(
                f"{self.url}: status {status}: {said}; check the address, the model's name and the account"
            )
        return Declined(f"status {status}: {said}", option)


_ADVICE = "run the same command again when it is back; with --folder it resumes"


class _Pace:
    """Return the time of the next request: as many a minute as are allowed, and none while the server asks to wait."""

    def __init__(self, per_minute: float | None) -> None:
        self._apart = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: threading.Event) -> bool:
        """Wait for a turn; whether all is given up meanwhile."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._apart if self._apart else self._next
        return stopped.wait(turn - now)

    def hold(self, seconds: float) -> None:
        """No request for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the server that was named."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayHere)


def _private(url: str) -> bool:
    """Return whether what is sent there cannot be overheard on the way."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _read(response: Any, deadline: float, seconds: float) -> bytes:
    """The body, before a time that was so many seconds away when it was asked for. Raises: _Trouble."""
    content = bytearray()
    try:
        while chunk := response.read1(65536) if hasattr(response, "read1") else response.read(65536):
            content += chunk
            if len(content) > MAX_REPLY_BYTES:
                raise _Trouble(f"its reply exceeds {MAX_REPLY_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise _Trouble(f"no whole answer within {seconds:.3g} seconds")
    except (OSError, http.client.HTTPException) as error:
        raise _Trouble(f"its reply broke off ({error})") from None
    return bytes(content)


def _parsed(content: bytes, charset: str | None = None) -> Any:
    """The JSON of a reply, or its text if it is none. charset: what its header names, if it does."""
    encoding = json.detect_encoding(content)  # UTF-8 with or without a mark before it, UTF-16 or UTF-32
    try:
        text = content.decode(charset if charset and encoding == "utf-8" else encoding, "replace")
    except LookupError:  # no such charset
        text = content.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _without(key: str, value: Any) -> Any:
    """The value with the key taken out of every string: servers like to repeat what they were sent."""
    if isinstance(value, str):
        return value.replace(key, "[key]") if key else value
    if isinstance(value, list):
        return [_without(key, one) for one in value]
    if isinstance(value, dict):
        return {_without(key, name): _without(key, one) for name, one in value.items()}
    return value


def _complaint(reply: Any) -> tuple[str, str, str]:
    """Read a server's error message, the option it names and its code, each empty if it is not given."""
    error = reply.get("error", reply) if isinstance(reply, dict) else reply
    if not isinstance(error, dict):
        return _line(error), "", ""
    said = next((error[key] for key in ("message", "detail") if error.get(key)), error)
    return _line(said), str(error.get("param") or ""), str(error.get("code") or "")


def _line(said: Any) -> str:
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return " ".join(text.split())[:300] or "it does not say why"


def _retry_after(text: str) -> float:
    """Seconds that a server asks to wait, given as such or as a date; 0 if it does not."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
