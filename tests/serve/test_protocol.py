"""Every field of a request: what is accepted, and what is refused by its name."""

from __future__ import annotations

import json
import reprlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.infer.engine.request import SamplingParams
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.protocol import ChatRequest, Conversation, parse_body, sampling_values, unknown_keys

MESSAGES = [{"role": "user", "content": "hello"}]
BIG = 2**63

RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 1, 0.7, 2, None], [-0.1, 2.1, 1e308, True, "1"]),
    "top_p": ([0.1, 1], [0, 1.01, "0.5", False]),
    "top_k": ([-1, 0, 1, 50], [-2, 1.5, True, BIG]),
    "min_p": ([0, 0.5], [1, -0.1]),
    "n": ([1, 8], [0, 9, -1, True, "2", 1.0]),
    "seed": ([0, -1, BIG - 1, -BIG], [BIG, -BIG - 1, 0.5, "1", True]),
    "max_tokens": ([1, 10**6], [0, -1, BIG, "5", True]),
    "max_completion_tokens": ([1], [0, 2**31]),
    "stop": (["a", ["a", "b", "c", "d"], None, []], ["", ["a"] * 5, [""], ["a" * 257], 5, ["a"] * 500_000]),
    "logprobs": ([True, False], [1, "true"]),
    "logit_bias": ([{"5": 1}, {"5": -100.0}, {}], [{"a": 1}, {"-1": 1}, {"5": 101}, {"5": "x"}, {"1" * 10: 0}]),
    "presence_penalty": ([-2, 2], [2.5, "0"]),
    "frequency_penalty": ([-2, 2], [-3]),
    "repetition_penalty": ([0.5, 1.3], [0, -1, 11]),
    "ignore_eos": ([True], ["yes", 1]),
    "cache_salt": (["tenant"], ["", "a" * 257, 5]),
    "user": (["me"], ["a" * 257, 1]),
    "metadata": ([{"a": "b"}], [{"a": 1}, {str(n): "" for n in range(17)}, []]),
    "stream": ([True, False], ["yes", 1]),
    "modalities": ([["text"]], [["audio"]]),
    "tool_choice": (["none", "auto"], ["required", {"type": "function"}]),
    "response_format": (
        [{"type": "text"}, {"type": "json_object"}],
        [{"type": "xml"}, {"type": "json_schema"}, "json"],
    ),
    "messages": ([MESSAGES], [[], None, "hello", {}, [5], MESSAGES * 4097]),
}
CASES = [(field, value, True) for field, (good, _) in RANGES.items() for value in good]
CASES += [(field, value, False) for field, (_, bad) in RANGES.items() for value in bad]


def parse(**fields: Any) -> ChatRequest:
    return parse_body(ChatRequest, json.dumps({"messages": MESSAGES} | fields).encode())


def short(value: object) -> str:
    return reprlib.repr(value)[:20]


@pytest.mark.parametrize(("field", "value", "accepted"), CASES, ids=short)
def test_a_field_has_its_range(field: str, value: Any, accepted: bool) -> None:
    if accepted:
        SamplingParams(**sampling_values(parse(**{field: value})))
        return
    with pytest.raises(ApiError) as refused:
        parse(**{field: value})
    assert refused.value.http_status == 400
    assert str(refused.value.param).split(".")[0].split("[")[0] == field
    assert len(refused.value.message) < 400


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "--1", "0x1"])
@pytest.mark.parametrize("field", ["temperature", "seed", "max_tokens"])
def test_what_is_no_number_in_json_is_refused(field: str, number: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(ChatRequest, f'{{"messages": {json.dumps(MESSAGES)}, "{field}": {number}}}'.encode())
    assert refused.value.http_status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"functions": [{"name": "f"}]},
        {"function_call": "auto"},
        {"audio": {"voice": "a"}},
        {"chat_template": "{{ 1 }}"},
        {"chat_template_kwargs": {"chat_template": "{% for %}"}},
        {"prompt_embeds": "AAAA"},
        {"best_of": 3},
    ],
    ids=short,
)
def test_what_would_change_the_answer_and_is_not_there_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        parse(**fields)
    assert refused.value.http_status == 400
    assert refused.value.param == next(iter(fields))


def test_tools_that_are_not_to_be_used_are_passed_over() -> None:
    assert parse(tools=[{"type": "function"}], tool_choice="none").tool_choice == "none"
    assert parse(tools=[]).tool_choice is None


PARTS: list[tuple[Any, str]] = [
    ({"type": "text"}, "messages[0].content[0].text"),
    ({"type": "text", "text": 5}, "messages[0].content[0].text"),
    ({"type": "input_audio", "input_audio": {}}, "messages[0].content[0]"),
    ({"type": "image_url"}, "messages[0].content[0].image_url"),
    ({"type": "image_url", "image_url": "data:"}, "messages[0].content[0].image_url"),
    ({"type": "image_url", "image_url": {}}, "messages[0].content[0].image_url.url"),
    ({"type": "image_url", "image_url": {"url": "x", "detail": "best"}}, "messages[0].content[0].image_url.detail"),
    ("text", "messages[0].content[0]"),
]


@pytest.mark.parametrize(("part", "param"), PARTS, ids=short)
def test_a_wrong_part_is_named_by_its_place(part: Any, param: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse(messages=[{"role": "user", "content": [part]}])
    assert refused.value.param == param


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "5"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": 5},
        {"content": "hello"},
        {"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": None},
    ],
    ids=short,
)
def test_a_wrong_message_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        parse(messages=[message])
    assert str(refused.value.param).startswith("messages")


def test_options_that_belong_together() -> None:
    with pytest.raises(ApiError) as refused:
        parse(stream_options={"include_usage": True})
    assert refused.value.param == "stream_options"
    with pytest.raises(ApiError) as refused:
        parse(top_logprobs=3)
    assert refused.value.param == "top_logprobs"
    assert parse(stream=True, stream_options={"include_usage": True}).stream
    assert sampling_values(parse(logprobs=True, top_logprobs=20))["logprobs"] == 20
    assert sampling_values(parse(max_tokens=5, max_completion_tokens=7))["max_tokens"] == 7


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"messages": ' + b"[" * 100_000, b'"' + b"a" * 10**6], ids=short
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(ChatRequest, body)
    assert refused.value.http_status == 400
    assert len(refused.value.message) < 300


def test_other_keys_are_kept_aside_to_be_named() -> None:
    asked = parse(store=True, parallel_tool_calls=False)
    assert unknown_keys(asked) == ["store", "parallel_tool_calls"]
    assert parse_body(Conversation, json.dumps({"messages": MESSAGES}).encode()).model is None


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "tools", "other"]), JUNK, max_size=4))
def test_whatever_a_field_holds_it_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        asked = parse(**fields)
    except ApiError as refused:
        assert refused.http_status == 400
        assert len(refused.message) < 400
    else:
        assert SamplingParams(**sampling_values(asked)).n in range(1, 9)


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries({"role": JUNK | st.just("user"), "content": JUNK | st.lists(JUNK)}), max_size=3))
def test_whatever_a_message_holds_it_is_read_or_refused(messages: list[Any]) -> None:
    try:
        asked = parse(messages=messages)
    except ApiError as refused:
        assert refused.http_status == 400
        assert str(refused.param).startswith("messages") or refused.code == "invalid_json"
    else:
        assert all(message.role == "user" for message in asked.messages)
