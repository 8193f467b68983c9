"""Several workers behind one address: placement, the router over scripted workers, and the life of two real ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorgnette.hub.export import save
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.serve.fleet.merged_metrics import merge
from lorgnette.serve.fleet.placement import MOST_OF_MEAN, Demand, Ring, demand_of
from lorgnette.serve.fleet.router import RouterApp, worker_jobs
from lorgnette.serve.fleet.worker_main import WorkerJob
from lorgnette.serve.http.api_keys import ApiKeys
from tests.hub.tiny import tiny_model, tiny_processor
from tests.serve.running import QUESTION, Running, png, running_app, serve_config, shown

KEY = "a-key-of-some-length"


def body(text: str = "hello", *contents: bytes, **more: Any) -> bytes:
    return json.dumps({**shown(text, *contents), **more}).encode()


def worker(number: int, tokens: int = 0) -> Any:
    return SimpleNamespace(number=number, tokens=tokens)


def test_a_key_is_the_first_image_or_a_long_beginning() -> None:
    first, second = png(seed=1), png(seed=2)
    assert demand_of(body("a", first), "").key == demand_of(body("another", first, second), "").key
    assert demand_of(body("a", first), "").key != demand_of(body("a", second), "").key
    assert demand_of(body("a", first), "").key != demand_of(body("a", first), "somebody else").key
    assert demand_of(body("a", first), "").key != demand_of(body("a", first, cache_salt="mine"), "").key
    assert demand_of(body("short"), "").key is None
    long = "the same instructions to all; " * 40
    assert demand_of(body(long + "one"), "").key == demand_of(body(long + "two"), "").key is not None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"messages": 5}', b'{"messages": [{"content": [5]}]}', b"\xff"]
)
def test_what_is_no_request_has_no_key(content: bytes) -> None:
    assert demand_of(content, "") == Demand(None, 1)


def test_tokens_are_estimated() -> None:
    asked = {"messages": [{"role": "user", "content": "a" * 400}], "max_tokens": 50, "n": 2}
    assert demand_of(json.dumps(asked).encode(), "").tokens == 200
    assert demand_of(json.dumps({**asked, "max_tokens": "x"}).encode(), "").tokens == 100


def test_keys_spread_and_stay_where_they_are() -> None:
    demands = [Demand(os.urandom(32), 100) for _ in range(600)]
    ring, workers = Ring(3), [worker(number) for number in range(3)]
    places = [ring.choose(one, workers).number for one in demands]
    assert all(120 < places.count(number) < 280 for number in range(3))
    without = [ring.choose(one, workers[:2]).number for one in demands]
    assert [now for now, before in zip(without, places, strict=True) if before < 2] == [
        one for one in places if one < 2
    ]


def test_a_worker_with_too_much_to_do_gives_way() -> None:
    ring, workers = Ring(4), [worker(number) for number in range(4)]
    demand = Demand(b"one image" * 4, 100)
    for _ in range(40):
        chosen = ring.choose(demand, workers)
        chosen.tokens += demand.tokens
    tokens = [one.tokens for one in workers]
    assert max(tokens) <= MOST_OF_MEAN * sum(tokens) / 4 + demand.tokens, "all requests have the same key"
    busy = [worker(0, 500), worker(1, 20), worker(2, 400)]
    assert Ring(3).choose(Demand(None, 10), busy).number == 1, "without a key, who has the least to do"
    assert Ring(3).choose(demand, []) is None


def test_metrics_of_workers_keep_their_names_and_get_a_label() -> None:
    page = '# HELP a:b Words.\n# TYPE a:b counter\na:b_total{status="4"} 2.0\n# TYPE a:c histogram\n'
    page += 'a:c_bucket{le="+Inf"} 1.0\na:c_count 1.0\na:c_sum 0.5\n'
    merged = merge({0: page, 1: page}, []).decode()
    assert 'a:b_total{status="4",worker="0"} 2.0' in merged and 'a:b_total{status="4",worker="1"} 2.0' in merged
    assert 'a:c_bucket{le="+Inf",worker="1"} 1.0' in merged
    assert merged.count("# TYPE a:c histogram") == 1


Script = Callable[[asyncio.StreamWriter, bytes], Any]
"""Answer of a scripted worker to a request."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n"


def reply(content: bytes, status: bytes = b"200 OK") -> bytes:
    head = HEAD.replace(b"200 OK", status) % b"application/json"
    return head + b"content-length: %d\r\n\r\n" % len(content) + content


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@contextlib.contextmanager
def scripted(*scripts: Script, keys: ApiKeys | None = None, **settings: Any) -> Iterator[tuple[Running, list[bytes]]]:
    """A router over workers that answer as scripts say, and the requests that they got."""
    got: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        job = WorkerJob(model="none", socket="", serve=serve_config(), engine=EngineConfig())
        app = RouterApp(worker_jobs(job, folder, len(scripts)), serve_config(**settings), keys)

        def supervise(number: int) -> Callable[[], Any]:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                request = await reader.readuntil(b"\r\n\r\n")
                got.append(b"%d " % number + request)
                with contextlib.suppress(OSError):
                    await scripts[number](writer, request)
                    await writer.drain()
                    writer.close()

            async def run() -> None:
                await asyncio.start_unix_server(serve, app.workers[number].job.socket)
                app.workers[number].is_ready = True

            return run

        for number, one in enumerate(app.workers):
            one.supervise = supervise(number)  # type: ignore[method-assign]
        with running_app(app) as server:
            while not all(one.is_ready for one in app.workers):
                time.sleep(0.01)
            yield server, got


async def good(writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.write(reply(b'{"fine": true}'))


async def dies(writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.close()


async def full(writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.write(reply(b'{"error": {"code": "queue_full"}}', b"429 Too Many Requests"))


async def dies_midway(writer: asyncio.StreamWriter, _: bytes) -> None:
    writer.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"data: {}\n\n"))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("bad", [dies, full])
def test_a_request_is_repeated_before_its_first_byte(bad: Script) -> None:
    with scripted(bad, good) as (server, got):
        for _ in range(2):
            assert server.ask(QUESTION)[::2] == (200, {"fine": True})
        assert server.app.repeats >= 1
        assert all(one.open == one.tokens == 0 for one in server.app.workers)
    assert [one[:6] for one in got][:2] == [b"0 POST", b"1 POST"]


def test_a_request_is_sent_to_two_workers_at_most() -> None:
    """One that ends its worker must not end all."""
    with scripted(dies, dies, good) as (server, got):
        status, headers, said = server.ask(QUESTION)
        assert (status, said["error"]["code"], headers["x-should-retry"]) == (503, "worker_lost", "true")
        assert len(got) == 2
        assert server.get("/ready")[0] == 200, "the third takes requests"


def test_a_stream_that_breaks_ends_with_an_error() -> None:
    with scripted(dies_midway) as (server, got):
        events = server.stream(QUESTION)
        assert events[0] == "data: {}"
        assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "worker_lost"
        assert len(events) == 2 and len(got) == 1, "nothing is repeated once something was sent"


def test_events_are_passed_on_one_by_one() -> None:
    free = threading.Event()

    async def slow(writer: asyncio.StreamWriter, _: bytes) -> None:
        writer.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"data: 1\n\n"))
        await writer.drain()
        await asyncio.to_thread(free.wait, 20)
        writer.write(chunk(b"data: 2\n\n") + chunk(b""))

    with scripted(slow) as (server, _):
        connection = server.connect()
        content = json.dumps({**QUESTION, "stream": True})
        connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.readline() == b"data: 1\n"
        free.set()
        assert response.read() == b"\ndata: 2\n\n"
        connection.close()


def test_keys_are_checked_once_and_owners_named() -> None:
    with scripted(good, keys=ApiKeys([KEY])) as (server, got):
        assert server.ask(QUESTION)[0] == 401
        assert server.ask(QUESTION, Authorization="Owner somebody")[0] == 401
        assert got == []
        assert server.ask(QUESTION, Authorization=f"Bearer {KEY}", **{"X-Request-Id": "one"})[0] == 200
    assert KEY.encode() not in got[0]
    owner = ApiKeys([KEY]).owner(f"Bearer {KEY}")
    assert f"authorization: Owner {owner}".encode() in got[0].lower().replace(b"owner", b"Owner")
    assert b"x-request-id: one" in got[0]


def test_limits_hold_at_the_router() -> None:
    with scripted(good, max_request_bytes=1000) as (server, got):
        assert server.ask({**QUESTION, "user": "a" * 2000})[0] == 413
        assert server.raw("POST", "/v1/chat/completions", b"{}", {"Content-Type": "text/plain"})[0] == 415
        assert server.get("/health", Host="evil.example")[0] == 400
        assert got == []
        assert server.app.bodies.held == 0


def test_without_a_worker_it_is_not_ready() -> None:
    with scripted(good) as (server, _):
        server.app.workers[0].is_ready = False
        assert [server.get(path)[0] for path in ("/health", "/ready")] == [200, 503]
        status, headers, said = server.ask(QUESTION)
        assert (status, said["error"]["code"], bool(headers["retry-after"])) == (503, "no_worker", True)


@contextlib.contextmanager
def two_workers(folder: Path) -> Iterator[Running]:
    """Two real workers of the tiny model."""
    save(tiny_model(seed=1), tiny_processor(), folder / "tiny")
    engine = EngineConfig(kv_bytes=2**20, max_running=8, max_waiting=32)
    job = WorkerJob(model=str(folder / "tiny"), socket="", serve=serve_config(), engine=engine)
    ready = threading.Event()
    with tempfile.TemporaryDirectory() as sockets:
        app = RouterApp(worker_jobs(job, sockets, 2), serve_config(drain_seconds=20), started=ready.set)
        with running_app(app) as server:
            assert ready.wait(240), "the workers do not start"
            assert stat.S_IMODE(os.stat(sockets).st_mode) == 0o700
            yield server


def counters(server: Running, name: str) -> dict[str, float]:
    """The values of a metric by worker."""
    lines = [line for line in server.get("/metrics")[2].decode().splitlines() if line.startswith(f"lorgnette:{name}{{")]
    return {line.partition('worker="')[2].partition('"')[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.05)


def answers_are_equal(server: Running, single: Running) -> None:
    asked = [shown("what colour?", png(40, 60, seed)) for seed in range(3)] + [QUESTION, {**QUESTION, "n": 2}]
    with ThreadPoolExecutor(8) as pool:
        found = [reply[2]["choices"] for reply in pool.map(server.ask, asked * 2)]
    expected = [single.ask(one)[2]["choices"] for one in asked]
    assert found == expected * 2
    whole = expected[0][0]["message"]["content"]
    chunks = [json.loads(event.removeprefix("data: ")) for event in server.stream(asked[0])[:-1]]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == whole
    for path, method in (("/nothing", "GET"), ("/v1/models", "DELETE"), ("/openapi.json", "GET"), ("/", "GET")):
        assert server.raw(method, path)[0] == single.raw(method, path)[0]


def images_are_encoded_once(server: Running) -> None:
    before = sum(counters(server, "visual_cache_misses_total").values())
    for turn in range(4):
        for seed in range(6):
            assert server.ask(shown(f"question {turn}", png(50, 50, 100 + seed)))[0] == 200
    misses = counters(server, "visual_cache_misses_total")
    assert sum(misses.values()) - before == 6
    assert min(misses.values()) > 0, "both workers have some"


def an_abort_travels(server: Running) -> None:
    before = sum(counters(server, "request_aborts_total").values())
    connection = server.connect()
    content = json.dumps({**QUESTION, "max_tokens": 3000, "ignore_eos": True, "stream": True})
    connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
    assert connection.getresponse().readline().startswith(b"data: ")
    connection.sock.shutdown(2)
    connection.close()
    until(lambda: sum(counters(server, "request_aborts_total").values()) == before + 1)
    assert sum(counters(server, "num_requests_running").values()) == 0


def a_killed_worker_is_replaced(server: Running) -> None:
    """Requests that wait for their answers get them from the other worker, which is not touched."""
    long = {**QUESTION, "max_tokens": 150, "ignore_eos": True}
    victim = server.app.workers[0]
    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(server.ask, {**long, "seed": number}) for number in range(8)]
        until(lambda: victim.open > 0)
        os.kill(victim.pid, signal.SIGKILL)
        assert [one.result()[0] for one in replies] == [200] * 8
    assert server.app.repeats > 0
    assert server.get("/ready")[0] == 200
    until(lambda: victim.restarts == 1 and victim.is_ready)
    assert counters(server, "worker_ready") == {"0": 1.0, "1": 1.0}


def draining_ends_all_in_order(server: Running) -> None:
    pids = [one.pid for one in server.app.workers]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.ask, {**QUESTION, "max_tokens": 300, "ignore_eos": True})
        until(lambda: any(one.open for one in server.app.workers))
        server.server.stop()
        assert [server.get("/ready")[0], server.ask(QUESTION)[0]] == [503, 503]
        assert running.result()[0] == 200
    assert server.ended.wait(60)
    assert server.failure == []
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


@pytest.mark.timeout(500)
def test_the_life_of_two_workers(tiny: Running, tmp_path: Path) -> None:
    """One test, because to start a worker takes seconds."""
    with two_workers(tmp_path) as server:
        answers_are_equal(server, tiny)
        images_are_encoded_once(server)
        an_abort_travels(server)
        a_killed_worker_is_replaced(server)
        draining_ends_all_in_order(server)
    assert server.ended.is_set()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_workers_are_restarted_one_by_one(tmp_path: Path) -> None:
    """No request is refused meanwhile."""
    with two_workers(tmp_path) as server:
        before = [one.pid for one in server.app.workers]
        done = asyncio.run_coroutine_threadsafe(server.app.recycle(), server.server.event_loop)
        while not done.done():
            assert server.ask(QUESTION)[0] == 200
        assert {one.pid for one in server.app.workers}.isdisjoint(before)
        assert [one.restarts for one in server.app.workers] == [1, 1]
