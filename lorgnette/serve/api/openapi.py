"""Description of the routes for programs (OpenAPI 3.1), from the models that read and write them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pydantic
from pydantic.json_schema import models_json_schema

import lorgnette
from lorgnette.serve.api.protocol import ChatRequest, Conversation, LookRequest
from lorgnette.serve.api.replies import (
    ChatCompletion,
    ErrorReply,
    HealthReply,
    LookReply,
    ModelList,
    ModelRow,
    Tokenized,
)

_REFERENCE = "#/components/schemas/{model}"
_KINDS: tuple[type[pydantic.BaseModel], ...] = (ChatRequest, Conversation, LookRequest)
_REPLIES: tuple[type[pydantic.BaseModel], ...] = (
    *(ChatCompletion, ErrorReply, HealthReply, LookReply),
    *(ModelList, ModelRow, Tokenized),
)

EVENT = {
    "type": "object",
    "description": "One event of the stream; the last one's data is [DONE].",
    "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["data"],
}
"""JSON schema of an event, as tools that split a stream into events read it."""


def _content(kind: type[pydantic.BaseModel] | str) -> dict[str, Any]:
    """The content of a body: JSON of a model, or text of this media type."""
    if isinstance(kind, str):
        return {kind: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=kind.__name__)}}}


def _route(
    words: str, reply: type[pydantic.BaseModel] | str, body: type[pydantic.BaseModel] | None = None
) -> dict[str, Any]:
    """One operation: its words, what it answers, and what it takes."""
    route: dict[str, Any] = {
        "summary": words,
        "responses": {
            "200": {"description": "Done.", "content": _content(reply)},
            "default": {"description": "Refused.", "content": _content(ErrorReply)},
        },
    }
    if body is not None:
        route["requestBody"] = {"required": True, "content": _content(body)}
    return route


def _description() -> dict[str, Any]:
    route = _route("This description.", "application/json")
    route["responses"]["200"]["content"]["application/json"]["schema"] = {"type": "object"}
    return route


@cache
def openapi() -> dict[str, Any]:
    """The whole description."""
    kinds: list[Any] = [(kind, "validation") for kind in _KINDS] + [(kind, "serialization") for kind in _REPLIES]
    _, schemas = models_json_schema(kinds, ref_template=_REFERENCE)
    chat = _route("Answer a conversation.", ChatCompletion, ChatRequest)
    chat["responses"]["200"]["content"]["text/event-stream"] = {"schema": EVENT}
    one_model = _route("The model that is served.", ModelRow)
    one_model["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "lorgnette", "version": lorgnette.__version__},
        "paths": {
            "/v1/chat/completions": {"post": chat},
            "/v1/models": {"get": _route("All models that are served.", ModelList)},
            "/v1/models/{id}": {"get": one_model},
            "/v1/look": {"post": _route("Show where in its images an answer came from.", LookReply, LookRequest)},
            "/tokenize": {"post": _route("Write a conversation as token ids.", Tokenized, Conversation)},
            "/health": {"get": _route("Whether the engine steps, or has nothing to do.", HealthReply)},
            "/ready": {"get": _route("Whether new requests are taken.", HealthReply)},
            "/metrics": {"get": _route("Metrics for Prometheus.", "text/plain")},
            "/openapi.json": {"get": _description()},
            "/": {"get": _route("A page to ask from.", "text/html")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }
