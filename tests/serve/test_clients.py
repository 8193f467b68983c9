"""The requests of other programs, as they send them: langchain-openai, lmms-eval, vLLM's benchmark and curl.

Each body below was recorded from the program itself, talking to this server.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lorgnette.serve.start_page import curl_line
from tests.house.source import ROOT
from tests.serve.running import QUESTION, Running, data_url, png

TEXT = [{"content": "what colour is the cat?", "role": "user"}]
IMAGE = {"type": "image_url", "image_url": {"url": data_url(png())}}
LANGCHAIN_TOOL = {"type": "function", "function": {"name": "Answer", "parameters": {"type": "object"}}}
LANGCHAIN_SCHEMA = {
    "schema": {
        "description": "An answer",
        "properties": {
            "colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"},
            "bright": {"title": "Bright", "type": "boolean"},
        },
        "required": ["colour", "bright"],
        "title": "Answer",
        "type": "object",
        "additionalProperties": False,
    },
    "name": "Answer",
    "strict": True,
}

BODIES: dict[str, dict[str, Any]] = {
    "langchain-openai, text": {"model": "tiny", "stream": False, "messages": TEXT, "max_completion_tokens": 10},
    "langchain-openai, log-probabilities": {
        "model": "tiny",
        "stream": False,
        "messages": TEXT,
        "logprobs": True,
        "max_completion_tokens": 10,
        "top_logprobs": 2,
    },
    "langchain-openai, an image and turns": {
        "model": "tiny",
        "stream": False,
        "messages": [
            {"content": "you", "role": "system"},
            {"content": [{"type": "text", "text": "what?"}, IMAGE], "role": "user"},
            {"content": "a cat", "role": "assistant"},
            {"content": "sure?", "role": "user"},
        ],
        "max_completion_tokens": 10,
    },
    "lmms-eval, model `openai`": {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what colour?"}, IMAGE]}],
        "max_tokens": 8,
        "temperature": 0,
    },
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_of_another_program_is_answered(tiny: Running, body: dict[str, Any]) -> None:
    status, _, reply = tiny.ask(body)
    assert status == 200, reply
    assert reply["usage"]["completion_tokens"] > 0
    assert isinstance(reply["choices"][0]["message"]["content"], str)


def test_langchains_structured_output(tiny: Running) -> None:
    form = {"type": "json_schema", "json_schema": LANGCHAIN_SCHEMA}
    body = {"model": "tiny", "stream": False, "messages": TEXT, "max_completion_tokens": 60, "response_format": form}
    (choice,) = tiny.ask(body)[2]["choices"]
    answer = json.loads(choice["message"]["content"])
    assert set(answer) == {"colour", "bright"} and choice["finish_reason"] == "stop"


def test_langchains_tools_are_refused_by_name(tiny: Running) -> None:
    """Its other way to structured output, `function_calling`."""
    choice = {"type": "function", "function": {"name": "Answer"}}
    body = {"model": "tiny", "messages": TEXT, "parallel_tool_calls": False, "tool_choice": choice}
    status, _, reply = tiny.ask({**body, "tools": [LANGCHAIN_TOOL]})
    assert (status, reply["error"]["param"]) == (400, "tools")
    assert "tools are not supported" in reply["error"]["message"]


@pytest.mark.parametrize("with_usage", [True, False])
def test_langchains_stream_has_usage_only_where_it_asks(tiny: Running, with_usage: bool) -> None:
    """`stream_usage=True` adds the option; without it no chunk may hold the field, not even as null."""
    more = {"stream_options": {"include_usage": True}} if with_usage else {}
    events = tiny.stream({"model": "tiny", "messages": TEXT, "max_completion_tokens": 10, **more})
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert all(("usage" in chunk) == with_usage for chunk in chunks)
    assert [bool(chunk.get("usage")) for chunk in chunks].count(True) == int(with_usage)


@pytest.mark.parametrize("image", [False, True], ids=["random", "random-mm"])
def test_vllms_benchmark(tiny: Running, image: bool) -> None:
    """It reads `root` of the first model, sends each request an id, and fixes the length by `ignore_eos`."""
    row = json.loads(tiny.get("/v1/models")[2])["data"][0]
    asked = {
        "model": row["root"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "the cat"}, *([IMAGE] if image else [])]}],
        "max_completion_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,  # of its --extra-body and --temperature
    }
    headers = {"Content-Type": "application/json", "x-request-id": "benchmark-serving0"}
    status, given, body = tiny.raw("POST", "/v1/chat/completions", json.dumps(asked).encode(), headers)
    assert (status, given["x-request-id"]) == (200, "benchmark-serving0")
    lines = [message.removeprefix("data: ") for message in body.decode().split("\n\n") if message.strip()]
    assert lines.pop() == "[DONE]"
    deltas, usages = [], []
    for chunk in map(json.loads, lines):
        if chunk["choices"]:
            deltas.append(chunk["choices"][0]["delta"].get("content"))
        elif chunk["usage"]:
            usages.append(chunk["usage"])
    assert [usage["completion_tokens"] for usage in usages] == [20]
    assert deltas[0] == "", "the first chunk comes with the first token, and is what it times"


def curl(words: list[str], server: Running) -> str:
    """What a curl command prints; where there is no curl, its request is made by hand."""
    assert words[0] == "curl"
    if shutil.which("curl"):
        done = subprocess.run([*words, "--silent", "--show-error"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1].encode()
    path = next(word for word in words if word.startswith("http")).removeprefix(server.address)
    return server.raw("POST", path, body, headers)[2].decode()


def test_the_curl_line(tiny: Running) -> None:
    reply = json.loads(curl(shlex.split(curl_line(tiny.address, "tiny", False)), tiny))
    assert reply["choices"][0]["message"]["role"] == "assistant"


def test_the_documented_stream_by_curl(tiny: Running, tmp_path: Path) -> None:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    command = page[page.index("curl -N") :].partition("```")[0]
    command = command.replace("\\\n", " ").replace("http://127.0.0.1:8000", tiny.address).replace('"demo"', '"tiny"')
    events = curl(shlex.split(command), tiny).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3
    assert all(event.startswith("data: ") for event in events)


def test_a_stream_is_not_held_back(tiny: Running) -> None:
    """Events arrive one by one: `curl -N` shows each as it is made."""
    connection = tiny.connect()
    body = json.dumps({**QUESTION, "max_tokens": 200, "ignore_eos": True, "stream": True})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.readline().startswith(b"data: {")
    assert tiny.app.thread.open_requests, "the answer is not complete when its first event is here"
    connection.close()
