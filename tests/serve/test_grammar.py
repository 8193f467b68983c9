"""Answers that follow a JSON schema, and schemas that are refused."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.protocol import ResponseFormat
from lorgnette.serve.grammar import GrammarCompiler
from tests.hub.tiny import tiny_config, tiny_processor
from tests.serve.running import QUESTION, Running

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def wanted(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def compiled(schema: dict[str, Any]) -> object:
    format_ = ResponseFormat.model_validate(wanted(schema))
    return GrammarCompiler(tiny_processor(), tiny_config().vocabulary).compile(format_)


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_follows_its_schema(tiny: Running, seed: int) -> None:
    asked = {**QUESTION, "max_tokens": 60, "temperature": 1.5, "seed": seed, "response_format": wanted(SCHEMA), "n": 2}
    status, _, reply = tiny.ask(asked)
    assert status == 200
    for choice in reply["choices"]:
        answer = json.loads(choice["message"]["content"])
        assert set(answer) == {"colour", "count"}
        assert answer["colour"] in ("red", "blue")
        assert 0 <= answer["count"] <= 9
        assert choice["finish_reason"] == "stop"


def test_json_object_begins_an_object(tiny: Running) -> None:
    reply = tiny.ask({**QUESTION, "response_format": {"type": "json_object"}, "max_tokens": 4})[2]
    assert reply["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "nothing"}}},
        {"type": "string", "pattern": "("},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/schema.json"},
        {"type": "array", "contains": {"type": "integer"}},
        {"enum": ["a" * 100] * 1000},
    ],
    ids=lambda schema: str(schema)[:30],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        compiled(schema)
    assert refused.value.http_status == 400
    assert refused.value.param == "response_format.json_schema.schema"
    assert len(refused.value.message) < 400


def test_a_hostile_schema_takes_no_long_time() -> None:
    began = time.process_time()
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(60):
        deep = {"type": "array", "items": deep, "minItems": 1, "maxItems": 50}
    for schema in (deep, {"type": "string", "pattern": "(a{1,100}){1,100}(b{1,100}){1,100}"}):
        try:
            compiled(schema)
        except ApiError as refused:
            assert refused.http_status == 400
    assert time.process_time() - began < 10
