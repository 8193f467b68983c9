"""Answers over HTTP equal those of `generate`, and what is wrong with a request is said of that request alone."""

from __future__ import annotations

import json
import threading

import pytest

import lorgnette.infer.image_cache
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.sample import Image, Sample, Text, Turn
from lorgnette.serve.http.api_keys import ApiKeys
from tests.hub.tiny import tiny_model, tiny_processor
from tests.serve.running import QUESTION, Running, png, running, shown

ANSWERS = {"messages": [{"role": "user", "content": "the mat"}], "max_tokens": 6}


def oracle(*segments: object, **settings: object):
    sample = Sample(tuple(segments))  # type: ignore[arg-type]
    return generate(tiny_model(seed=1), tiny_processor(), sample, GenerationConfig(**{"max_tokens": 8} | settings))[0]


def test_an_answer_is_that_of_generate(tiny: Running) -> None:
    expected = oracle(Turn("user"), Text("what colour is the cat?"))
    status, headers, reply = tiny.ask(QUESTION)
    assert status == 200
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": expected.text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length" if expected.finish == "length" else "stop",
        }
    ]
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "tiny"
    assert reply["usage"]["prompt_tokens"] == expected.prompt_tokens
    assert reply["usage"]["completion_tokens"] == len(expected.tokens)
    assert reply["usage"]["total_tokens"] == expected.prompt_tokens + len(expected.tokens)
    assert int(headers["x-lorgnette-seed"]) >= 0
    assert set(reply) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}


def test_images_stand_where_their_parts_do(tiny: Running) -> None:
    content = png()
    expected = oracle(Turn("user"), Image(content), Text("what colour?"))
    _, _, reply = tiny.ask(shown("what colour?", content))
    assert reply["choices"][0]["message"]["content"] == expected.text
    details = reply["usage"]["prompt_tokens_details"]
    assert details["image_tokens"] == 4
    assert details["text_tokens"] == expected.prompt_tokens - 4
    high = tiny.ask(shown("what colour?", content, detail="high"))[2]
    assert high["usage"]["prompt_tokens_details"]["image_tokens"] == 20, "five crops"
    again = tiny.ask(shown("what colour?", content))[2]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert again["choices"] == reply["choices"]


def test_roles_become_turns(tiny: Running) -> None:
    messages = [
        {"role": "developer", "content": "the mat"},
        {"role": "user", "content": "a red square"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "over"}, {"type": "text", "text": " a blue"}]},
    ]
    segments = (Turn("system"), Text("the mat"), Turn("user"), Text("a red square"), Turn("assistant"))
    expected = oracle(*segments, Turn("user"), Text("over"), Text(" a blue"))
    _, _, reply = tiny.ask({"messages": messages, "max_tokens": 8})
    assert reply["choices"][0]["message"]["content"] == expected.text


def test_text_that_spells_a_special_token_is_text(tiny: Running) -> None:
    special = tiny_processor().tokenizer.special_tokens
    for token in special:
        _, _, reply = tiny.post("/tokenize", {"messages": [{"role": "user", "content": f"a {token} b"}]})
        plain = tiny.post("/tokenize", {"messages": [{"role": "user", "content": "a  b"}]})[2]
        assert reply["image_tokens"] == 0
        added = set(reply["tokens"]) - set(plain["tokens"])
        assert tiny_processor().tokenizer.id(token) not in added


def test_draws_depend_on_the_seed_alone(tiny: Running) -> None:
    asked = {**QUESTION, "temperature": 1.0, "seed": 7, "max_tokens": 12}
    expected = oracle(Turn("user"), Text("what colour is the cat?"), temperature=1.0, seed=7, max_tokens=12)
    _, headers, reply = tiny.ask(asked)
    assert reply["choices"][0]["message"]["content"] == expected.text
    assert headers["x-lorgnette-seed"] == "7"
    _, headers, drawn = tiny.ask({**asked, "seed": None})
    _, _, again = tiny.ask({**asked, "seed": int(headers["x-lorgnette-seed"])})
    assert again["choices"] == drawn["choices"]


def test_several_answers_and_their_log_probabilities(tiny: Running) -> None:
    asked = {**QUESTION, "n": 3, "temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 2}
    _, _, reply = tiny.ask(asked)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in reply["choices"]}) == 3
    for choice in reply["choices"]:
        listed = choice["logprobs"]["content"]
        content = b"".join(bytes(one["bytes"]) for one in listed)
        assert content.decode("utf-8", "replace") == choice["message"]["content"]
        assert all(len(one["top_logprobs"]) == 2 and one["logprob"] <= 0 for one in listed)


def test_stop_strings_do_not_appear(tiny: Running) -> None:
    whole = oracle(Turn("user"), Text("the mat"), max_tokens=40).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    _, _, reply = tiny.ask({**ANSWERS, "stop": stop, "max_tokens": 40})
    assert reply["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
    assert reply["choices"][0]["finish_reason"] == "stop"


def test_tokenize_gives_the_prompt(tiny: Running) -> None:
    asked = shown("what colour?", png())
    _, _, reply = tiny.post("/tokenize", {"messages": asked["messages"]})
    sample = Sample((Turn("user"), Image(png()), Text("what colour?")))
    assert reply["tokens"] == tiny_processor().prompts([sample]).tokens_T.tolist()
    assert (reply["count"], reply["image_tokens"]) == (len(reply["tokens"]), 4)


def test_a_damaged_image_fails_its_request_alone(tiny: Running) -> None:
    whole = png(60, 60)
    good = tiny.ask(QUESTION)[2]["choices"]
    faults = tiny.engine.stats().faults
    for length in range(10, len(whole) - 12, len(whole) // 12):
        status, headers, reply = tiny.ask(shown("what colour?", whole[:length]))
        assert (status, reply["error"]["code"]) == (400, "invalid_image")
        assert headers["x-should-retry"] == "false"
        assert "0x" not in reply["error"]["message"]
    assert tiny.ask(QUESTION)[2]["choices"] == good
    assert tiny.engine.stats().faults == faults


@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt_is_refused_with_its_code(tiny: Running, stream: bool) -> None:
    longest = tiny.app.longest
    status, _, reply = tiny.ask({"messages": [{"role": "user", "content": "the cat " * longest}], "stream": stream})
    assert status == 400
    assert reply["error"]["code"] == "context_length_exceeded"
    assert reply["error"]["type"] == "invalid_request_error"
    status, _, reply = tiny.ask({**QUESTION, "max_tokens": 2**31 - 1, "stream": stream})
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded"), "more than there is memory for"


def test_another_model_is_not_found(tiny: Running) -> None:
    status, _, reply = tiny.ask({**QUESTION, "model": "gpt-4"})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "model_not_found", "model")
    assert tiny.ask({**QUESTION, "model": "tiny"})[0] == 200
    row = json.loads(tiny.get("/v1/models")[2])["data"][0]
    assert row == json.loads(tiny.get("/v1/models/tiny")[2])
    assert set(row) == {"id", "object", "created", "owned_by", "root", "max_model_len"}
    assert tiny.get("/v1/models/a/b")[0] == 404


def test_images_are_decoded_outside_of_the_steps(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    decode = lorgnette.infer.image_cache.image_patches
    monkeypatch.setattr(
        lorgnette.infer.image_cache,
        "image_patches",
        lambda *given: threads.append(threading.current_thread().name) or decode(*given),
    )
    image = png(seed=77)
    assert tiny.ask(shown("what colour is the cat?", image, image))[0] == 200
    assert [name.rpartition("_")[0] for name in threads] == ["decode"]


def test_visual_tokens_are_shared_within_a_key_alone() -> None:
    """Who asks about a picture that another has shown waits for it to be encoded, as for a new one."""
    keys = ["a-key-of-sixteen-or-more", "another-key-of-the-same-kind"]
    with running(ApiKeys(keys)) as server:

        def misses(key: str, image: bytes, **more: str) -> int:
            before = server.engine.image_cache.misses
            asked = shown("what colour is the cat?", image) | more
            assert server.ask(asked, Authorization=f"Bearer {key}")[0] == 200
            return server.engine.image_cache.misses - before

        one = png(seed=78)
        assert [misses(key, one) for key in (keys[0], keys[0], keys[1], keys[1])] == [1, 0, 1, 0]
        assert [misses(keys[0], one, cache_salt=salt) for salt in ("x", "x", "y")] == [1, 0, 1]
        server.engine.scheduler.prefixes.clear()
        assert misses(keys[0], one) == 0
