"""Complaints about other servers, and known attacks on them: each has a test here or elsewhere, by name.

The numbers are issues of the projects named.
"""

from __future__ import annotations

import ast
import gc
import json
import logging
import random
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import PIL.Image
import pytest

from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.chat_route import DECODING_THREADS
from tests.house.source import ROOT
from tests.hub.tiny import SAMPLES, question
from tests.infer.engine.driving import engine as tiny_engine
from tests.infer.engine.driving import request
from tests.serve.running import QUESTION, Running, data_url, png, running, shown
from tests.serve.test_event_stream import data, until_idle
from tests.serve.test_grammar import compiled, wanted
from tests.serve.test_request_images import encoded, read

HERE, ENGINE = "tests/serve/test_complaints.py", "tests/infer/engine/"
CHAT, STREAM, THREAD = (f"tests/serve/test_{name}.py" for name in ("chat_route", "event_stream", "engine_thread"))
GUARD, PROTOCOL = "tests/serve/test_guard.py", "tests/serve/test_protocol.py"
COMPLAINTS = {
    "memory grows for days (vllm#35191, sglang#9365)": f"{HERE}::test_memory_does_not_grow_with_requests",
    "memory at n > 1 (vllm#12973)": f"{HERE}::test_several_choices_stay_within_the_memory_of_keys",
    "memory with prefix caching (vllm#28726)": f"{ENGINE}test_prefix_cache.py::test_prefixes_keep_to_their_bytes",
    "/health late by 200 ms (vllm#34789)": f"{HERE}::test_health_is_quick_while_the_engine_works",
    "more threads, slower (vllm#58266)": f"{HERE}::test_images_are_read_by_few_threads",
    "many images stop all others (vllm#49317)": f"{HERE}::test_a_request_of_many_images_stops_no_other",
    "an idle server is busy (vllm#21873)": f"{HERE}::test_an_idle_server_takes_no_processor_time",
    "73 tokens for 74 places: engine dead (vllm#19070)": f"{HERE}::test_counts_of_image_tokens_agree",
    "tokens of a prompt with images (vllm#14557)": f"{CHAT}::test_tokenize_gives_the_prompt",
    "one request ends all (mlx-vlm#1346)": "tests/serve/test_openai_client.py::test_bad_requests_touch_no_other",
    "answers are mixed (mistral.rs#2323)": f"{ENGINE}test_oracle.py::test_random_arrivals_and_aborts_change_no_answer",
    "an abort stops the server (llama.cpp#27604)": f"{STREAM}::test_500_aborts_leave_nothing_behind",
    "an abort is not seen (vllm#54947)": f"{STREAM}::test_an_answer_ends_when_its_client_goes_away",
    "... nor while it waits": f"{HERE}::test_a_client_that_leaves_the_queue_frees_its_place",
    "another's image (LMCache#4086)": f"{ENGINE}test_prefix_cache.py::test_two_images_of_equal_prompts_are_never_mixed",
    "a damaged image is 500 (vllm#38253)": f"{CHAT}::test_a_damaged_image_fails_its_request_alone",
    "an image ends the server (llama.cpp#23331)": f"{HERE}::test_a_file_cut_anywhere_is_refused_or_read",
    "stop strings are shown (vllm#3574, #45636)": f"{HERE}::test_no_part_of_a_stop_string_is_streamed",
    "half a character (mlx-vlm#1076)": "tests/infer/test_text.py::test_pieces_add_up_to_the_decoded_text",
    "500,000 stop strings (vllm#51447)": f"{HERE}::test_what_costs_much_is_refused_at_once",
    "top_logprobs 16,384 (textgen#7657)": f"{HERE}::test_what_costs_much_is_refused_at_once",
    "a schema ends the server (vllm#17248)": f"{HERE}::test_a_bad_schema_is_told_by_its_keyword",
    "a schema's keyword is not named (llama.cpp#26596)": f"{HERE}::test_a_bad_schema_is_told_by_its_keyword",
    "no end to waiting (vllm#16391)": f"{THREAD}::test_who_waits_too_long_is_503",
    "no orderly end (vllm#24885)": f"{THREAD}::test_draining_lets_answers_end_and_takes_no_more",
}
IMAGES, ACCESS = "tests/serve/test_request_images.py", "tests/inputs/test_access.py"
ATTACKS = {
    "fetching private addresses (CVE-2025-6242)": f"{IMAGES}::test_nothing_but_public_addresses_is_fetched",
    "parsers differ on a backslash (CVE-2026-24779)": f"{IMAGES}::test_nothing_but_public_addresses_is_fetched",
    "an address in a text (CVE-2026-0599)": f"{IMAGES}::test_addresses_are_not_fetched_unless_allowed",
    "redirects": f"{ACCESS}::test_each_redirect_is_checked",
    "a name with a private address among others": f"{ACCESS}::test_every_address_of_a_name_must_be_public",
    "a name that changes its address": f"{ACCESS}::test_the_address_that_was_checked_is_connected_to",
    "a body drop by drop": f"{ACCESS}::test_one_deadline_counts_for_everything",
    "endless and compressed bodies": f"{ACCESS}::test_answers_without_end_are_refused",
    "paths and other schemes": f"{IMAGES}::test_no_path_and_no_other_scheme_is_opened",
    "decompression bombs": f"{IMAGES}::test_a_bomb_is_refused_by_its_header",
    "a file of 10,000 frames, and one of 1 x 10,000": f"{HERE}::test_frames_and_long_pictures_cost_little",
    "1 x 1, CMYK, 16 bits (CVE-2026-22773)": f"{IMAGES}::test_odd_images_are_answered",
    "an EXIF ImageID as key": f"{IMAGES}::test_what_a_file_says_of_itself_is_no_key",
    "typed control tokens (CVE-2026-44222)": f"{CHAT}::test_text_that_spells_a_special_token_is_text",
    "templates (CVE-2025-61620)": f"{PROTOCOL}::test_what_would_change_the_answer_and_is_not_there_is_refused",
    "pickles (CVE-2025-62164)": "tests/house/test_execution.py::test_nothing_that_is_read_is_executed",
    "schemas (CVE-2025-48942 and others)": f"{HERE}::test_random_schemas_are_compiled_or_refused",
    "numbers (CVE-2026-21869)": f"{PROTOCOL}::test_what_is_no_number_in_json_is_refused",
    "keys, told by time (CVE-2025-59425)": f"{GUARD}::test_every_route_wants_a_key",
    "tenants time each other (CVE-2025-46570)": f"{GUARD}::test_tenants_share_no_prefix",
    "endless headers (CVE-2025-48956)": f"{GUARD}::test_headers_without_end_are_cut",
    "slowloris": f"{GUARD}::test_slow_headers_are_cut",
    "endless and slow bodies": f"{GUARD}::test_large_bodies_are_refused",
    "another site's page": f"{GUARD}::test_another_host_is_refused",
    "a canary in prompt, image and key": f"{GUARD}::test_the_log_holds_nothing_that_was_said",
    "addresses in messages (CVE-2026-22778)": f"{CHAT}::test_a_damaged_image_fails_its_request_alone",
}


@cache
def defined_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("name", [*COMPLAINTS, *ATTACKS])
def test_every_complaint_and_attack_has_its_test(name: str) -> None:
    path, _, test = (COMPLAINTS | ATTACKS)[name].partition("::")
    assert test in defined_in(path)


def test_memory_does_not_grow_with_requests(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of a server of small limits are full after 40 requests; 60 more leave no object behind.

    What else lives in the process may grow once (a server of another test, a cache of a library); what requests leave
    behind grows in each of three rounds. `benchmarks/soak.py` holds the memory of a whole process.
    """
    caplog.set_level(logging.CRITICAL)  # pytest keeps what is logged
    monkeypatch.setattr("lorgnette.infer.image_cache.MEMORY_OF_SIZES", 8)
    with running(engine=tiny_engine(max_waiting=16, image_bytes=2**12, prefix_bytes=2**14)) as server:

        def objects_after(first: int, last: int) -> Counter[str]:
            for number in range(first, last):
                kind, content = number % 4, png(20 + number % 40, 30, seed=number)
                if kind == 0:
                    server.stream({**QUESTION, "user": f"u{number}", f"key{number % 40}": 1})
                elif kind == 1:
                    assert server.ask({**QUESTION, "n": 2, "temperature": 1.0, "cache_salt": f"s{number}"})[0] == 200
                else:
                    content = content if kind == 2 else content[:50]
                    assert server.ask(shown("what?", content))[0] == (200 if kind == 2 else 400)
            until_idle(server)
            gc.collect()
            return Counter(type(thing).__name__ for thing in gc.get_objects())

        before, grown = objects_after(0, 40), []
        for first in (40, 100, 160):
            after = objects_after(first, first + 60)
            grown.append((after.total() - before.total(), (after - before).most_common(8)))
            before = after
            if grown[-1][0] < 40:
                break
        stats = server.engine.stats()
    assert grown[-1][0] < 40, f"objects of 60 requests, by rounds: {grown}"
    assert stats.image_bytes <= 2**12 and stats.kv_bytes_cached <= 2**14


def test_several_choices_stay_within_the_memory_of_keys() -> None:
    engine = tiny_engine(kv_bytes=2**16, max_running=8)
    for number in range(2):
        engine.add(request(number, SAMPLES[1], n=8, max_tokens=40, temperature=1.0, ignore_eos=True))
    ended = 0
    while not engine.is_idle:
        ended += sum(event.generation is not None for event in engine.step())
        assert engine.stats().kv_bytes_used <= 2**16
    assert ended == 16


def test_health_is_quick_while_the_engine_works(tiny: Running) -> None:
    """At least nine of ten replies come within 200 ms while images are read and long answers grow."""
    done = threading.Event()

    def work(number: int) -> None:
        while not done.is_set():
            tiny.ask({**shown("what?", png(300, 300, seed=number), detail="high"), "max_tokens": 60})

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, number) for number in range(4)]
        times = []
        for _ in range(40):
            began = time.monotonic()
            assert tiny.get("/health")[0] == 200
            times.append(time.monotonic() - began)
            time.sleep(0.01)
        done.set()
        assert [one.exception() for one in workers] == [None] * 4
    assert sorted(times)[36] < 0.2, times


def test_images_are_read_by_few_threads(tiny: Running) -> None:
    with ThreadPoolExecutor(16) as pool:
        asked = [shown("what?", png(60, 60, seed=number)) for number in range(16)]
        assert {reply[0] for reply in pool.map(tiny.ask, asked)} <= {200, 429}
    readers = [thread.name for thread in threading.enumerate() if thread.name.startswith("images")]
    assert 0 < len(readers) <= DECODING_THREADS * 3, "of this server, and of those that other tests keep"


def test_a_request_of_many_images_stops_no_other() -> None:
    """Every step has a token for an answer that grows, while 16 images are encoded."""
    engine = tiny_engine(kv_bytes=2**20, patches_per_step=40)
    engine.add(request("grows", SAMPLES[1], max_tokens=200, ignore_eos=True))
    engine.step()
    engine.add(request("many", question("?", *[(84, 84)] * 16), max_tokens=2, ignore_eos=True))
    steps = 0
    while "many" in engine.requests:
        events = engine.step()
        assert "grows" in {event.request for event in events}
        steps += 1
    assert steps >= 16, "an image a step"


def test_an_idle_server_takes_no_processor_time(tiny: Running) -> None:
    until_idle(tiny)
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.15


@pytest.mark.parametrize("detail", ["low", "high", "auto"])
@pytest.mark.parametrize("size", [(1, 1), (40, 60), (300, 7), (85, 84)])
def test_counts_of_image_tokens_agree(tiny: Running, size: tuple[int, int], detail: str) -> None:
    """The count before a prompt is answered is that of the tokens it takes."""
    asked = shown("<image> what?", png(*size), png(*size, seed=1), detail=detail)
    counted = tiny.post("/tokenize", {"messages": asked["messages"]})[2]
    usage = tiny.ask({**asked, "max_tokens": 1})[2]["usage"]
    assert usage["prompt_tokens"] == counted["count"] == len(counted["tokens"])
    assert usage["prompt_tokens_details"]["image_tokens"] == counted["image_tokens"]


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    with running(engine=tiny_engine(max_running=1, max_waiting=4)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.ask, {**QUESTION, "max_tokens": 120, "ignore_eos": True})
        while not server.engine.stats().running:
            time.sleep(0.001)
        for _ in range(3):
            connection = server.connect()
            body = json.dumps({**QUESTION, "stream": True})
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            connection.close()
        assert first.result()[0] == 200
        until_idle(server)
        assert (server.engine.stats().waiting, server.app.thread.open_requests) == (0, ())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_file_cut_anywhere_is_refused_or_read(tiny: Running, kind: str) -> None:
    """Every tenth length by the reader of headers, and some by the engine too."""
    whole = encoded(kind)
    for length in range(0, len(whole), 10):
        try:
            read(data_url(whole[:length]))
        except ApiError as refused:
            assert (refused.http_status, refused.code) == (400, "invalid_image")
    statuses = {tiny.ask(shown("?", whole[:length]))[0] for length in range(30, len(whole), len(whole) // 8)}
    assert statuses <= {200, 400}
    assert tiny.engine.stats().faults == 0


def test_no_part_of_a_stop_string_is_streamed(tiny: Running) -> None:
    asked = {**QUESTION, "max_tokens": 40}
    whole = tiny.ask(asked)[2]["choices"][0]["message"]["content"]
    for at in range(2, len(whole) - 4, 5):
        stop = whole[at : at + 3]
        chunks = [one for chunk in data(tiny.stream({**asked, "stop": [stop]})) for one in chunk["choices"]]
        text = "".join(one["delta"].get("content", "") for one in chunks)
        assert text == whole[: whole.index(stop)]
        assert chunks[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("stop", ["a"] * 500_000), ("top_logprobs", 16_384), ("logit_bias", {str(n): 1 for n in range(2000)})),
        *(("n", 10_000), ("max_tokens", 2**40), ("messages", [{"role": "user", "content": "a"}] * 5000)),
        *(("user", "a" * 10**6), ("metadata", {str(n): "a" for n in range(10**4)})),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_costs_much_is_refused_at_once(tiny: Running, field: str, value: Any) -> None:
    began = time.process_time()
    status, _, reply = tiny.ask({**QUESTION, "logprobs": True, field: value})
    assert (status, str(reply["error"]["param"]).split("[")[0].split(".")[0]) == (400, field)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"type": "object", "properties": {"a": {"type": "string", "not": {"const": "x"}}}}, "not"),
        ({"type": "nothing"}, "nothing"),
    ],
)
def test_a_bad_schema_is_told_by_its_keyword(tiny: Running, schema: dict[str, Any], keyword: str) -> None:
    status, _, reply = tiny.ask({**QUESTION, "response_format": wanted(schema)})
    assert (status, reply["error"]["code"]) == (400, "invalid_schema")
    assert keyword in reply["error"]["message"]
    assert tiny.ask(QUESTION)[0] == 200


def random_schema(draw: random.Random, depth: int = 0) -> Any:
    """A schema of any keywords and values, most of them wrong."""
    if depth > 3 or draw.random() < 0.2:
        return draw.choice([True, False, None, {}, 1, "string", {"type": draw.choice(["integer", "null", "x", 5])}])
    keywords = (
        *("type", "properties", "items", "enum", "const", "anyOf", "allOf", "oneOf", "$ref", "pattern", "minLength"),
        *("maxLength", "minimum", "maximum", "multipleOf", "required", "additionalProperties", "minItems", "format"),
    )
    values = (
        lambda: random_schema(draw, depth + 1),
        lambda: {name: random_schema(draw, depth + 1) for name in draw.choices("abc", k=2)},
        lambda: [random_schema(draw, depth + 1) for _ in range(draw.randrange(3))],
        lambda: draw.choice(["string", "object", "array", "#", "#/$defs/a", "(", "[a-z]{2,9}", "\ud800", "date"]),
        lambda: draw.choice([0, -1, 2**63, 1e308, 0.1, 10**6]),
    )
    return {draw.choice(keywords): draw.choice(values)() for _ in range(draw.randrange(1, 4))}


def test_random_schemas_are_compiled_or_refused() -> None:
    draw, refused = random.Random(0), 0
    for _ in range(150):
        schema = random_schema(draw)
        if not isinstance(schema, dict):
            continue
        try:
            compiled(schema)
        except ApiError as error:
            refused += 1
            assert error.http_status == 400 and len(error.message) < 400
    assert 30 < refused < 150


def gif_of_frames(count: int) -> bytes:
    """A picture of one pixel, repeated as so many frames."""
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<2H3B", 1, 1, 0x80, 0, 0) + bytes(6) + frame * count + b"\x3b"


def test_frames_and_long_pictures_cost_little(tiny: Running) -> None:
    long = encoded("PNG", PIL.Image.new("RGB", (1, 10_000)))
    for content in (gif_of_frames(10_000), long):
        began = time.process_time()
        assert tiny.ask(shown("what?", content))[0] == 200
        assert time.process_time() - began < 3


def test_connections_that_say_nothing_keep_nobody_out(tiny: Running) -> None:
    silent = [socket.create_connection(("127.0.0.1", tiny.port)) for _ in range(200)]
    try:
        assert tiny.ask(QUESTION)[0] == 200
    finally:
        for one in silent:
            one.close()
