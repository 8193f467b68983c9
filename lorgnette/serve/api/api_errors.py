"""Errors in the shape of OpenAI's API: `{"error": {message, type, param, code}}` for every status.

A message never holds an address, a path, a traceback or the words of another library: it goes to a stranger.
"""

from __future__ import annotations

import logging
import traceback

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorgnette.errors import DataError, ImageError, LorgnetteError, PromptTooLong, SettingsError
from lorgnette.infer.engine.request import EngineFault, QueueFull, QueueTimeout

log = logging.getLogger("lorgnette.serve")

RETRY_SECONDS = 2
"""Value of `Retry-After`: a place in the queue is free again after a few answers."""
ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's type by status; other 4xx are invalid_request_error, and 5xx server_error."""
PHRASES = {
    404: "there is no such route; GET /openapi.json lists all",
    405: "the route does not take this method; GET /openapi.json lists all",
}


class ApiError(LorgnetteError):
    """A refusal with its HTTP status."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """param: path of the field that is wrong, such as `messages[0].content`. code: a word for programs."""
        super().__init__(message)
        self.http_status, self.message, self.param, self.code = status, message, param, code

    @property
    def may_retry(self) -> bool:
        """Return whether the same request may succeed a moment later."""
        return self.http_status in (429, 503)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that tell clients whether to try again."""
        headers = {"x-should-retry": str(self.may_retry).lower()}
        if self.may_retry:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if self.http_status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self) -> dict[str, object]:
        """The error as OpenAI writes it."""
        kind = ERROR_TYPES.get(self.http_status, "invalid_request_error" if self.http_status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The error as an HTTP response."""
        return JSONResponse(self.body(), self.http_status, self.headers)


def stopping() -> ApiError:
    """The refusal of a server that is being stopped."""
    return ApiError(503, "the server is stopping; try again at another one, or later", code="stopping")


def engine_down() -> ApiError:
    """The refusal of a server whose engine has failed for good."""
    return ApiError(503, "the engine is not running; try again later", code="engine_down")


def as_api_error(error: Exception) -> ApiError:
    """The error of a request, with its status: 4xx for what is wrong with it, 429 and 503 for what will pass."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), code="queue_full")
    if isinstance(error, QueueTimeout):
        return ApiError(503, str(error), code="queue_timeout")
    if isinstance(error, PromptTooLong):
        return ApiError(400, str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, ImageError):
        return ApiError(400, image_message(error), param="messages", code="invalid_image")
    if isinstance(error, DataError | SettingsError):  # of settings: what the checkpoint asks for and is not done
        return ApiError(400, str(error))
    if isinstance(error, EngineFault):
        return ApiError(500, "the model failed on this request; other requests are not touched", code="engine_fault")
    return ApiError(500, "the server failed on this request", code="internal_error")


def image_message(error: ImageError) -> str:
    """The message of an image that cannot be read, without what a decoder said in its own words."""
    own, said, _ = str(error).partition("cannot be read as an image")
    return f"{own}{said} (it is damaged, or cut off)" if said else own


def places(error: BaseException) -> str:
    """Stack of an error without its message, which may repeat what a user wrote."""
    return "".join(traceback.format_tb(error.__traceback__))


async def on_api_error(_: Request, error: Exception) -> Response:
    """Answer a refusal. A fault of the model's is logged by its places, without its words."""
    if isinstance(error, EngineFault):
        log.error("a request failed: %s\n%s", error, places(error.__cause__ or error))
    return as_api_error(error).response()


async def on_http_error(_: Request, error: Exception) -> Response:
    """Answer a refusal of the framework's own: no such route, or not this method."""
    assert isinstance(error, HTTPException)
    response = ApiError(error.status_code, PHRASES.get(error.status_code, "the request is refused")).response()
    response.headers.update(error.headers or {})
    return response
