"""The engine's thread: faults of one request and of all, full queues, draining, and what is measured."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import EngineFault
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.engine_thread import MOST_UNREAD, EngineThread
from lorgnette.serve.server import BROKEN_STATUS, EngineBroken
from tests.hub.tiny import SAMPLES
from tests.infer.engine.driving import engine as tiny_engine
from tests.infer.engine.driving import request
from tests.serve.running import QUESTION, Running, running

LONG = {**QUESTION, "max_tokens": 500, "ignore_eos": True}


class Held:
    """Stops an engine before its next step, until it is let go."""

    def __init__(self, engine: Engine) -> None:
        self.reached, self.free = threading.Event(), threading.Event()
        self._step = engine.step
        engine.step = self.step  # type: ignore[method-assign]

    def step(self, now: float) -> Any:
        self.reached.set()
        assert self.free.wait(30)
        return self._step(now)


def test_a_full_queue_is_429_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(engine=tiny_engine(max_waiting=1)) as server:
        add = server.engine.add

        def after_another(wanted: Any, now: float) -> Any:
            add(request("in the way", SAMPLES[1]), now)
            return add(wanted, now)

        monkeypatch.setattr(server.engine, "add", after_another)
        status, headers, reply = server.ask(QUESTION)
    assert (status, reply["error"]["code"], reply["error"]["type"]) == (429, "queue_full", "rate_limit_error")
    assert (headers["x-should-retry"], int(headers["retry-after"]) > 0) == ("true", True)


def test_who_waits_too_long_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        add = server.engine.add
        monkeypatch.setattr(server.engine, "add", lambda wanted, now: add(wanted, now - 100))
        replies = [server.ask({**QUESTION, "stream": stream}) for stream in (False, True)]
    for status, headers, reply in replies:
        assert (status, reply["error"]["code"]) == (503, "queue_timeout")
        assert headers["x-should-retry"] == "true"


def test_too_many_open_requests_are_429() -> None:
    with running(max_open=1) as server, ThreadPoolExecutor(1) as pool:
        held = Held(server.engine)
        first = pool.submit(server.ask, QUESTION)
        assert held.reached.wait(30)
        assert server.ask(QUESTION)[0] == 429
        assert server.get("/health")[0] == 200, "those who watch are let in"
        held.free.set()
        assert first.result()[0] == 200


def test_a_fault_of_one_request_is_500_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        before = server.ask(QUESTION)[2]["choices"]
        add = server.engine.add

        def failing(wanted: Any, now: float) -> Any:
            if "the mat" in wanted.sample.text:
                raise RuntimeError("a secret path")
            return add(wanted, now)

        monkeypatch.setattr(server.engine, "add", failing)
        status, _, reply = server.ask({"messages": [{"role": "user", "content": "the mat"}]})
        assert (status, reply["error"]["type"]) == (500, "server_error")
        assert "secret" not in json.dumps(reply)
        assert server.ask(QUESTION)[2]["choices"] == before


def broken(times: int) -> tuple[Engine, Callable[[float], Any]]:
    engine = tiny_engine()
    step, left = engine.step, [times]

    def failing(now: float) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("a secret path")
        return step(now)

    engine.step = failing  # type: ignore[method-assign]
    return engine, failing


def test_a_step_that_fails_ends_its_requests_and_no_later_one() -> None:
    with running(engine=broken(2)[0]) as server:
        replies = [server.ask(QUESTION) for _ in range(3)]
        assert [status for status, _, _ in replies] == [500, 500, 200]
        assert "secret" not in str(replies)
        assert server.get("/health")[0] == 200


def test_an_engine_that_keeps_failing_ends_the_server() -> None:
    with running(engine=broken(10**6)[0]) as server:
        statuses = [server.ask(QUESTION)[0] for _ in range(3)]
        server.ended.wait(30)
    assert statuses[:2] == [500, 500]
    assert isinstance(server.failure[0], EngineBroken)
    assert server.failure[0].status == BROKEN_STATUS


class Silent:
    def added(self, request: str, now: float) -> None:
        """Hear nothing."""

    def stepped(self, seconds: float, engine: Engine) -> None:
        """Hear nothing."""


def test_a_broken_engine_answers_calls_with_503() -> None:
    async def run() -> None:
        thread = EngineThread(broken(10**6)[0], Silent())
        thread.start()
        for number in range(3):
            _, channel = await thread.open(request(number, SAMPLES[1]))
            assert isinstance((await channel.read())[0].error, EngineFault)
        await asyncio.wait_for(thread.broken.wait(), 30)
        assert not thread.is_healthy
        with pytest.raises(ApiError, match="not running"):
            await thread.call(lambda engine: engine.stats())
        await thread.close()

    asyncio.run(run())


def test_an_answer_that_is_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorgnette.serve.engine_thread.MOST_UNREAD", 5)

    async def run() -> None:
        thread = EngineThread(tiny_engine(), Silent())
        thread.start()
        _, channel = await thread.open(request("slow", SAMPLES[1], max_tokens=500, ignore_eos=True))
        while thread.open_requests:
            await asyncio.sleep(0)
        events = await channel.read()
        assert len(events) == 6
        assert isinstance(events[-1].error, ApiError)
        assert await thread.call(lambda engine: engine.is_idle)
        await thread.close()

    asyncio.run(run())
    assert MOST_UNREAD > 5


def test_draining_lets_answers_end_and_takes_no_more() -> None:
    with running() as server, ThreadPoolExecutor(2) as pool:
        held = Held(server.engine)
        first = pool.submit(server.ask, QUESTION)
        assert held.reached.wait(30)
        server.server.stop()
        connection_refused = [server.get("/ready"), server.ask(QUESTION)]
        assert [one[0] for one in connection_refused] == [503, 503]
        assert connection_refused[0][1]["retry-after"]
        assert server.get("/health")[0] == 200
        held.free.set()
        assert first.result()[0] == 200


def test_what_does_not_end_in_time_gets_an_error() -> None:
    with running(drain_seconds=0.05) as server, ThreadPoolExecutor(2) as pool:
        held = Held(server.engine)
        whole = pool.submit(server.ask, LONG)
        assert held.reached.wait(30)
        server.server.stop()
        status, _, reply = whole.result()
        held.free.set()
    assert (status, reply["error"]["code"]) == (503, "stopping")


def test_metrics_count_what_happened() -> None:
    with running() as server:
        server.ask(QUESTION)
        server.stream(QUESTION)
        server.get("/nothing")
        status, headers, body = server.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
    assert float(values["lorgnette:generation_tokens_total"]) == 16
    assert float(values["lorgnette:num_requests_running"]) == 0
    assert float(values["lorgnette:time_to_first_token_seconds_count"]) == 2
    assert float(values["lorgnette:e2e_request_latency_seconds_count"]) == 2
    assert float(values["lorgnette:request_queue_time_seconds_count"]) == 2
    assert float(values["lorgnette:inter_token_latency_seconds_count"]) >= 2
    assert float(values['lorgnette:responses_refused_total{status="404"}']) == 1


def test_the_description_names_every_route_and_its_models(tiny: Running) -> None:
    description = json.loads(tiny.get("/openapi.json")[2])
    assert set(description["paths"]) >= {"/v1/chat/completions", "/v1/models", "/tokenize", "/health", "/ready"}
    schemas = description["components"]["schemas"]
    named = set(json.dumps(description).split('"#/components/schemas/')[1:])
    assert {name.partition('"')[0] for name in named} <= schemas.keys()
    assert schemas["ChatRequest"]["properties"]["n"]["anyOf"][0]["maximum"] == 8
