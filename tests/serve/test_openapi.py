"""Requests made from the server's own description: none is a fault, and every reply is as the description says."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks

from lorgnette.serve.api.openapi import openapi
from tests.serve.running import QUESTION, Running

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
NOT_ASKED = [checks.positive_data_acceptance]
"""A schema cannot say everything that is refused: damaged images, the id of another model, too long a prompt."""
PINNED = {
    "messages": QUESTION["messages"],
    "model": "tiny",
    "max_tokens": 4,
    "max_completion_tokens": None,
    "logprobs": True,
    "stream": True,
    "response_format": None,
    "tool_choice": None,
}
"""Fields of a request that is accepted, whatever the others hold within their ranges."""


def description(**pinned: Any) -> dict[str, Any]:
    """The server's description, its requests with these values and no others."""
    found = copy.deepcopy(openapi())
    for kind in ("ChatRequest", "Conversation"):
        schema = found["components"]["schemas"][kind]
        own = {name: {"const": value} for name, value in pinned.items() if name in schema["properties"]}
        schema["properties"] |= own
        schema["required"] += own
        schema["additionalProperties"] = not pinned
    return found


def statuses(server: Running, route: str, mode: GenerationMode, examples: int, **pinned: Any) -> Counter[int]:
    """The statuses of replies, each of them checked against the description."""
    found: Counter[int] = Counter()
    method = "post" if "post" in openapi()["paths"][route] else "get"
    operation = schemathesis.openapi.from_dict(description(**pinned))[route][method]

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=server.address)
        found[response.status_code] += 1
        case.validate_response(response, excluded_checks=NOT_ASKED)

    ask()
    return found


@pytest.mark.parametrize("route", [route for route in openapi()["paths"] if "get" in openapi()["paths"][route]])
def test_replies_of_routes_that_are_read(tiny: Running, route: str) -> None:
    assert max(statuses(tiny, route, POSITIVE, 10)) in (200, 404)


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/tokenize"])
@pytest.mark.parametrize("mode", [POSITIVE, NEGATIVE], ids=["valid", "invalid"])
def test_no_body_is_a_fault(tiny: Running, route: str, mode: GenerationMode) -> None:
    found = statuses(tiny, route, mode, 6)
    assert max(found) < 500
    assert tiny.engine.stats().faults == 0
    assert mode is POSITIVE or set(found) <= {400, 415}


def test_answers_are_as_described_whatever_the_fields_hold(tiny: Running) -> None:
    found = statuses(tiny, "/v1/chat/completions", POSITIVE, 12, **PINNED)
    assert found[200] >= 6, found
    assert set(found) <= {200, 400}


def test_the_schema_says_that_a_message_has_content(tiny: Running) -> None:
    """Clients that validate what they send are told before they send it."""
    schema = openapi()
    whole = {"$ref": "#/components/schemas/ChatMessage", "components": schema["components"]}
    for message in ({"role": "user"}, {"role": "user", "content": None}, {"role": "assistant"}):
        refused = tiny.post("/tokenize", {"messages": [message, QUESTION["messages"][0]]})[0] == 400
        assert jsonschema_rs.is_valid(whole, message) != refused


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest.mark.parametrize("route", openapi()["paths"])
def test_other_methods_are_405(tiny: Running, route: str) -> None:
    allowed = {name.upper() for name in openapi()["paths"][route]}
    for method in METHODS:
        status, headers, body = tiny.raw(method, route.replace("{id}", "tiny"))
        assert (status == 405) == (method not in allowed), method
        if status == 405:
            assert set(headers["allow"].replace(",", " ").split()) - {"HEAD"} == allowed
            assert json.loads(body)["error"]["type"] == "invalid_request_error"
