"""Streams: their exact events, errors midway, and readers that go away."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from lorgnette.infer.engine.request import ChosenToken, EngineFault, Event, Usage
from lorgnette.infer.generate import Generation
from lorgnette.serve.api.answers import AnswerAssembler, ReplyHead
from lorgnette.serve.api.token_bytes import TokenBytes
from lorgnette.serve.engine_thread import AnswerChannel
from lorgnette.serve.http.event_stream import EventStream
from tests.hub.tiny import tiny_processor
from tests.serve.running import QUESTION, Running, png, shown

HEAD = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"tiny","system_fingerprint":"fp_1"'


def data(events: list[str]) -> list[Any]:
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def assembler(choices: int = 1) -> AnswerAssembler:
    token_bytes = TokenBytes(tiny_processor().tokenizer)
    return AnswerAssembler(
        ReplyHead("chatcmpl-1", 5, "tiny", "fp_1"), choices, token_bytes, frozenset(), logprobs=False, chat=True
    )


def sent(events: list[Event], *, with_usage: bool = False) -> bytes:
    """The bytes of a stream of these events."""
    parts: list[bytes] = []

    async def send(message: Any) -> None:
        parts.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def run() -> None:
        channel = AnswerChannel()
        for event in events[1:]:
            channel.push(event)
        ended: list[int] = []
        stream = EventStream(
            channel, assembler(), events[:1], lambda: ended.append(1), with_usage=with_usage, times=(5, 5)
        )
        await stream({"type": "http"}, receive, send)
        assert ended == [1]

    asyncio.run(run())
    return b"".join(parts)


LAST = Event("1", 0, ChosenToken(6), "lo", Generation("hello", (5, 6), "end", 7), Usage(7, 4, 2))


def test_the_bytes_of_a_stream() -> None:
    expected = [
        f'{{{HEAD},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]}}',
        f'{{{HEAD},"choices":[{{"index":0,"delta":{{"content":"hel"}},"logprobs":null,"finish_reason":null}}]}}',
        f'{{{HEAD},"choices":[{{"index":0,"delta":{{"content":"lo"}},"logprobs":null,"finish_reason":null}}]}}',
        f'{{{HEAD},"choices":[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}',
        "[DONE]",
    ]
    written = sent([Event("1", 0, ChosenToken(5), "hel"), LAST]).decode()
    assert written == "".join(f"data: {one}\n\n" for one in expected)


def test_usage_is_in_every_chunk_or_in_none() -> None:
    written = sent([Event("1", 0, ChosenToken(5), "hel"), LAST], with_usage=True).decode()
    chunks = data(written.removesuffix("\n\n").split("\n\n"))
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2, "image_tokens": 4, "text_tokens": 3},
    }


def test_a_fault_midway_is_an_event_and_the_end() -> None:
    fault = EngineFault("a secret path")
    events = sent([Event("1", 0, ChosenToken(5), "hel"), Event("1", error=fault)]).decode().split("\n\n")
    error = json.loads(events[-2].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_fault")
    assert "secret" not in error["message"]
    assert "[DONE]" not in "".join(events)


@pytest.mark.parametrize("more", [{}, {"n": 2, "temperature": 1.0, "seed": 4}, {"logprobs": True, "top_logprobs": 1}])
def test_a_stream_says_what_the_whole_answer_says(tiny: Running, more: dict[str, Any]) -> None:
    asked = {**shown("what colour?", png()), "max_tokens": 12, **more}
    whole = tiny.ask(asked)[2]
    chunks = data(tiny.stream({**asked, "stream_options": {"include_usage": True}}))
    for choice in whole["choices"]:
        own = [one for chunk in chunks for one in chunk["choices"] if one["index"] == choice["index"]]
        assert "".join(one["delta"].get("content", "") for one in own) == choice["message"]["content"]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert [one["finish_reason"] for one in own][-1] == choice["finish_reason"]
        if choice["logprobs"] is not None:
            listed = [token for one in own if one["logprobs"] for token in one["logprobs"]["content"]]
            assert [one["bytes"] for one in listed] == [one["bytes"] for one in choice["logprobs"]["content"]]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_headers_of_a_stream(tiny: Running) -> None:
    body = json.dumps({**QUESTION, "stream": True}).encode()
    _, headers, _ = tiny.raw("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-lorgnette-seed"].isdigit()


def test_an_image_that_is_damaged_is_refused_before_the_stream_begins(tiny: Running) -> None:
    content = png()
    status, _, reply = tiny.ask({**shown("?", content[: len(content) // 2]), "stream": True})
    assert (status, reply["error"]["code"]) == (400, "invalid_image")


HEADERS = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
LONG = {**QUESTION, "max_tokens": 600, "ignore_eos": True}


def idle(server: Running) -> bool:
    """Whether the engine has nothing to do, seen after its present step."""
    call = server.app.thread.call(lambda engine: engine.is_idle)
    return asyncio.run_coroutine_threadsafe(call, server.server.event_loop).result(30)


def until_idle(server: Running) -> None:
    """Wait for the steps after which a request is dropped; each is asked between two steps."""
    for _ in range(200):
        if idle(server):
            return
    raise AssertionError("the engine goes on with an answer that nobody reads")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_when_its_client_goes_away(tiny: Running, stream: bool) -> None:
    aborts, tokens = tiny.engine.stats().aborts, tiny.engine.stats().generation_tokens
    body = json.dumps({**LONG, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", tiny.port)) as connection:
        connection.sendall(f"{HEADERS}{len(body)}\r\n\r\n".encode() + body)
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        else:
            for _ in range(200):
                if not idle(tiny):
                    break
    until_idle(tiny)
    assert tiny.engine.stats().aborts == aborts + 1
    assert tiny.engine.stats().generation_tokens < tokens + 600
    assert tiny.app.thread.open_requests == ()
    assert tiny.app.chat.bodies.held == 0


def test_500_aborts_leave_nothing_behind(tiny: Running) -> None:
    body = json.dumps({**LONG, "stream": True}).encode()
    for number in range(500):
        with socket.create_connection(("127.0.0.1", tiny.port)) as connection:
            connection.sendall(f"{HEADERS}{len(body)}\r\n\r\n".encode() + body[: len(body) - number % 2])
            if number % 10 == 0:  # a whole body, whose answer has begun
                connection.recv(10)
    assert tiny.ask(QUESTION)[0] == 200
    until_idle(tiny)
    stats = tiny.engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.kv_bytes_used == stats.kv_bytes_cached
    assert (tiny.app.thread.open_requests, tiny.app.chat.bodies.held) == ((), 0)


def test_a_stream_that_is_not_read_is_closed() -> None:
    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def run() -> list[int]:
        ended: list[int] = []
        times = (5.0, 0.01)
        stream = EventStream(
            AnswerChannel(), assembler(), [LAST], lambda: ended.append(1), with_usage=False, times=times
        )
        await stream({"type": "http"}, receive, stuck)
        return ended

    assert asyncio.run(run()) == [1]


def test_a_silent_stream_is_kept_open_by_a_comment() -> None:
    parts: list[bytes] = []

    async def run() -> None:
        channel = AnswerChannel()

        async def send(message: Any) -> None:
            parts.append(message.get("body", b""))
            if message.get("body") == b": ping\n\n":
                channel.push(LAST)

        async def receive() -> Any:
            await asyncio.Event().wait()

        stream = EventStream(channel, assembler(), [], lambda: None, with_usage=False, times=(0.01, 5))
        await stream({"type": "http"}, receive, send)

    asyncio.run(run())
    assert b": ping\n\n" in parts
    assert parts[-2] == b"data: [DONE]\n\n"


def test_tokens_add_up_to_the_bytes_of_their_text() -> None:
    tokenizer = tiny_processor().tokenizer
    token_bytes = TokenBytes(tokenizer)
    for text in ("the cat sat", "Grüße, 你好 🙂", "a\n\tb\u00a0c", "\u0000\x7f"):
        assert b"".join(map(token_bytes, tokenizer.encode(text))).decode() == text
