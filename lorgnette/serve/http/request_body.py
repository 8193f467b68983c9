"""Bodies of requests: read up to a limit of bytes, of time, and of memory of all of them together."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.event_stream import ClientGone


class BodyReader:
    """Reads bodies of JSON."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.held = 0
        """Bytes of the bodies that are held now."""

    async def read(self, request: Request) -> HeldBody:
        """The body of a request. Raises: ApiError 400, 408, 413, 415 or 429; ClientGone."""
        self._check_headers(request)
        body = HeldBody(self)
        try:
            async with asyncio.timeout(self.config.body_seconds):
                async for part in request.stream():
                    body.add(part)
                    if body.size > self.config.max_body_bytes:
                        raise _too_large(self.config.max_body_bytes)
                    if self.held > self.config.max_body_memory:
                        raise ApiError(429, "the server holds too many bytes at once; try again later", code="too_many")
            return body
        except BaseException as error:
            body.release()
            if isinstance(error, TimeoutError):
                said = f"the body did not arrive within {self.config.body_seconds:g} seconds"
                raise ApiError(408, said) from None
            if isinstance(error, ClientDisconnect):
                raise ClientGone from None
            raise

    def _check_headers(self, request: Request) -> None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a page of another site cannot send it without asking first
            raise ApiError(415, "the body is JSON; send the header `Content-Type: application/json`")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "a compressed body is not accepted; send it as it is")
        declared = request.headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()) or int(declared[:20]) > self.config.max_body_bytes:
            raise _too_large(self.config.max_body_bytes)


class HeldBody:
    """A body, whose bytes count until it is released: images made of it live as long as their request."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        """Append bytes that have come."""
        self._parts.append(part)
        self.size += len(part)
        self._reader.held += len(part)

    def take(self) -> bytes:
        """The whole body, which is not kept."""
        content = b"".join(self._parts)
        self._parts.clear()
        return content

    def release(self) -> None:
        """Count it no longer."""
        self._reader.held -= self.size
        self.size = 0


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body exceeds {most >> 20} MiB; send fewer or smaller images", code="too_large")
