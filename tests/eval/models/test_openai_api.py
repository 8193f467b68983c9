"""A server as the answerer, over a real one on this computer: what it is sent, what may go wrong, and the key."""

from __future__ import annotations

import base64
import email.utils
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import LorgnetteError, SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.judge import judged
from lorgnette.eval.metrics import Reference
from lorgnette.eval.models import open_model
from lorgnette.eval.models.base import Answer
from lorgnette.eval.models.http_client import ServerError, ServerSettings, _retry_after
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.models.openai_api import OpenAIModel, chat_messages, image_url, messages_written
from lorgnette.eval.results.store import Example, ResultsFolder, score
from lorgnette.eval.results.summary import print_results
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.eval.tasks import task_named
from lorgnette.output import progress_bar
from lorgnette.sample import Image, Sample, Text, Turn
from tests.eval.fixtures import write_benchmark
from tests.eval.serving import Reply, Request, Served, answers_of, completion, failure, serving, text_of
from tests.hub.tiny import picture, tiny_model, tiny_processor

KEY = "sk-very-secret-0123456789"
QUICK = {"backoff": 0.005}


@pytest.fixture(autouse=True)
def _no_key_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name == "OPENAI_API_KEY":
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Served]:
    """Says what it was asked, backwards."""
    with serving(lambda request: text_of(request)[::-1]) as served:
        yield served


def client(served: Served, **settings: object) -> OpenAIModel:
    return OpenAIModel(served.address, "tiny", ServerSettings.parse(QUICK | settings))


def asked(*texts: str) -> list[Sample]:
    return [Sample((Turn("user"), Text(text)), {"name": text}) for text in texts]


def file_of(image: PIL.Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def opened(url: str) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


# --- what is sent


def test_a_conversation_is_sent_as_it_is_and_a_document_as_one_turn() -> None:
    image = Image(picture(4, 3))
    chat = Sample((Turn("system"), Text("be brief"), Turn("user"), image, Text("what"), Text("?"), Turn("assistant"),
                   Text("a cat"), Turn("user"), Text("sure?"), image))  # fmt: skip
    system, first, answer, second = chat_messages(chat)
    assert system == {"role": "system", "content": "be brief"}
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert first["content"][1] == {"type": "text", "text": "what?"}
    assert answer == {"role": "assistant", "content": "a cat"}
    assert [part["type"] for part in second["content"]] == ["text", "image_url"]
    (turn,) = chat_messages(Sample((image, Text("Q: A:"), Text(" b"), Text("\n"), image, Text("Q: A:"))))
    assert [part.get("text") for part in turn["content"]] == [None, "Q: A: b\n", None, "Q: A:"]
    assert turn["role"] == "user"
    assert messages_written(chat).splitlines()[2:] == ["assistant: a cat", messages_written(chat).splitlines()[3]]
    assert "[image " in messages_written(chat)
    assert Sample.from_messages(chat_messages(chat), supervised=None).text == chat.text


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [("PNG", "RGB", {}), ("PNG", "P", {}), ("JPEG", "L", {}), ("WEBP", "RGB", {"lossless": True}), ("PNG", "RGBA", {})],
)
def test_an_ordinary_file_is_sent_as_it_is(form: str, mode: str, options: dict, tmp_path: Path) -> None:
    content = file_of(picture(20, 10).convert(mode), form, **options)
    (tmp_path / "picture").write_bytes(content)
    for source in (content, tmp_path / "picture"):
        head, _, body = image_url(source).partition(",")
        assert head == f"data:image/{form.lower()};base64"
        assert base64.b64decode(body) == content


def test_any_other_image_is_sent_as_we_see_it() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = file_of(picture(20, 10), "JPEG", exif=exif, quality=100)
    assert opened(image_url(turned)).size == (10, 20), "upright, whoever opens it"
    deep = PIL.Image.new("I;16", (4, 4), 40_000)
    assert opened(image_url(file_of(deep, "PNG"))).getpixel((0, 0)) == (156, 156, 156), "not white"
    for form, mode in (("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("JPEG", "CMYK")):
        seen = opened(image_url(file_of(picture(20, 10).convert(mode), form)))
        assert (seen.format, seen.mode, seen.size) == ("PNG", "RGB", (20, 10))
    assert opened(image_url(picture(20, 10))).tobytes() == picture(20, 10).tobytes()
    assert image_url("https://example.org/a.png") == "https://example.org/a.png"
    with pytest.raises(LorgnetteError, match="q1, image 2: not an image of a known format"):
        image_url(b"nothing", "q1, image 2")


def test_the_request(server: Served) -> None:
    answerer = client(server)
    assert answerer.identity == f"{server.address}#tiny"
    assert answerer.generate(asked("äöü €"), max_tokens=7, stop=["\n", "b", "c", "d", "ü"]) == ["€ "]
    (request,) = server.asked
    assert request == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "äöü €"}],
        "max_tokens": 7,
        "temperature": 0,
        "stop": ["\n", "b", "c", "d"],
    }
    assert "Authorization" not in server.headers[0]
    assert answerer.generate([], max_tokens=7) == []


def test_order_is_kept_and_requests_are_bounded(server: Served) -> None:
    names = [f"question {number}" for number in range(24)]
    barrier = threading.Barrier(4)

    def slow(request: Request) -> str:
        number = int(text_of(request).split()[1])
        if number < 4:
            barrier.wait(5)  # passes only if four are asked at once
        time.sleep(0.002 * (number % 5))
        return str(number)

    server.answer = slow
    assert client(server, concurrency=4).generate(asked(*names), max_tokens=5) == [str(n) for n in range(24)]
    assert server.most_running == 4
    server.most_running = 0
    client(server, concurrency=1).generate(asked("q 7", "q 8", "q 9"), max_tokens=5)
    assert server.most_running == 1


def test_so_many_a_minute(server: Served) -> None:
    began = time.monotonic()
    client(server, per_minute=1200).generate(asked(*"abcde"), max_tokens=5)
    assert time.monotonic() - began >= 4 * 0.05


# --- what an answer may look like


@pytest.mark.parametrize(
    ("body", "text", "declined"),
    [
        (completion("a\u2028b 猫 🐈"), "a\u2028b 猫 🐈", ""),
        (completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "ab", ""),
        (completion(None, finish_reason="length"), "", ""),
        (completion("half", finish_reason="content_filter"), "", "its content filter"),
        (completion(None, message={"content": None, "refusal": "I cannot."}), "", "it refuses: I cannot."),
        ({"choices": []}, "", "its reply holds no message"),
        ({"choices": [{}]}, "", "its reply holds no message"),
    ],
    ids=["unicode", "parts", "length", "filter", "refusal", "no choices", "no message"],
)
def test_every_form_of_an_answer(server: Served, body: dict, text: str, declined: str) -> None:
    server.script = [Reply(200, body)]
    (answer,) = client(server).generate(asked("?"), max_tokens=5)
    assert (answer, getattr(answer, "declined", None)) == (text, declined)


def test_who_answered_is_kept(server: Served) -> None:
    server.script = [Reply(200, completion("x", model="tiny-2026-01-02", system_fingerprint="fp_9"))]
    (answer,) = client(server).generate(asked("?"), max_tokens=5)
    assert isinstance(answer, Answer)
    assert answer.by == "tiny-2026-01-02 fp_9"


# --- what may go wrong


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down", {"retry-after": "0.05"}),
        failure(500, "oops"),
        Reply(503, b"<html>busy</html>"),
        Reply(200, b"{half"),
        Reply(200, {"hello": 1}),
        Reply(200, {"error": {"code": 429, "message": "upstream"}}),
        Reply(200, {"error": {"code": 0, "message": "upstream"}}),
        Reply(200, b"short", {"Content-Length": "500"}),
    ],
    ids=["429", "500", "503 html", "no JSON", "no choices", "200 with a 429 inside", "200 with an error", "broken off"],
)
def test_trouble_that_passes_is_waited_out(server: Served, trouble: Reply) -> None:
    server.script = [trouble, trouble]
    began = time.monotonic()
    assert client(server).generate(asked("ab"), max_tokens=5) == ["ba"]
    assert len(server.asked) == 3
    assert time.monotonic() - began >= (0.1 if "retry-after" in trouble.headers else 0)


def test_a_storm_ends_in_one_sentence(server: Served) -> None:
    server.answer = lambda request: failure(500, "the engine is dead")
    with pytest.raises(ServerError, match=r"status 500: the engine is dead \(attempt 3\)") as caught:
        client(server, attempts=3).generate(asked(*"abcdefgh"), max_tokens=5)
    assert "\n" not in str(caught.value)
    before = len(server.asked)
    time.sleep(0.1)
    assert len(server.asked) - before <= 8, "those in flight end, and no others begin"


def test_a_wait_beyond_all_patience_is_not_begun(server: Served) -> None:
    server.answer = lambda request: failure(429, "come back tomorrow", {"Retry-After": "86400"})
    began = time.monotonic()
    with pytest.raises(ServerError, match="asks to wait 86400 seconds"):
        client(server).generate(asked("a"), max_tokens=5)
    assert time.monotonic() - began < 5


def test_everybody_waits_when_one_is_told_to(server: Served) -> None:
    times = []
    server.script = [failure(429, "slow down", {"Retry-After": "0.3"})]
    server.answer = lambda request: times.append(time.monotonic()) or "x"
    answerer = client(server, concurrency=1)
    began = time.monotonic()
    answerer.generate(asked("a", "b"), max_tokens=5)
    assert min(times) - began >= 0.3


def test_waits_that_are_asked_for_are_no_failures(server: Served) -> None:
    server.script = [failure(429, "slow down", {"Retry-After": "0.001"})] * 12
    assert client(server, attempts=2, concurrency=1).generate(asked("ab"), max_tokens=5) == ["ba"]
    server.script = [failure(429, "slow down", {"Retry-After": "0.05"})] * 12
    with pytest.raises(ServerError, match="slow down"):
        client(server, patience=0.2).generate(asked("ab"), max_tokens=5)


def test_an_error_wakes_those_who_wait(server: Served) -> None:
    both = threading.Barrier(2)

    def answer(request: Request) -> Reply:
        both.wait(5)
        wait = text_of(request) == "wait"
        return failure(429, "busy", {"Retry-After": "60"}) if wait else failure(401, "who?")

    server.answer, began = answer, time.monotonic()
    with pytest.raises(ServerError, match="who"):
        client(server).generate(asked("wait", "fail"), max_tokens=5)
    assert time.monotonic() - began < 5


def test_retry_after_is_seconds_or_a_date() -> None:
    assert _retry_after("7") == 7
    assert 55 < _retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert [_retry_after(text) for text in ("", "soon", "-4", "nan", "Fri, 31 Dec 1999 23:59:59 GMT")] == [0] * 5


def test_a_server_that_says_nothing_in_time(server: Served) -> None:
    gate = threading.Event()
    server.answer = lambda request: gate.wait(5) and "late"
    with pytest.raises(ServerError, match=r"no answer within 0\.1 seconds"):
        client(server, timeout=0.1, attempts=2).generate(asked("a"), max_tokens=5)
    gate.set()
    server.script = []
    server.answer = lambda request: "in time"
    assert client(server, timeout=5).generate(asked("a"), max_tokens=5) == ["in time"]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://a..b/v1", "http://[::1]:9/v1", "http://é/ü"])
def test_nobody_there(address: str) -> None:
    answerer = OpenAIModel(address, "tiny", ServerSettings.parse(QUICK))
    with pytest.raises(ServerError, match=r"/chat/completions: cannot be reached .*attempt 3"):
        answerer.generate(asked("a"), max_tokens=5)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (failure(401, "who are you?"), "the key is not accepted .*who are you.*set OPENAI_API_KEY"),
        (failure(402, "pay"), "status 402: pay"),
        (failure(404, "the model `tiny` does not exist"), "status 404: the model `tiny` does not exist"),
        (failure(429, "no money", code="insufficient_quota"), "status 429: no money"),
        (Reply(307, b"", {"Location": "http://elsewhere.example/v1"}), "sends us to http://elsewhere.example/v1"),
    ],
    ids=["401", "402", "404", "quota", "redirect"],
)
def test_what_no_attempt_mends_is_not_tried_again(server: Served, reply: Reply, message: str) -> None:
    server.script = [reply]
    with pytest.raises(ServerError, match=message):
        client(server).generate(asked("a"), max_tokens=5)
    assert len(server.asked) == 1


def test_an_address_that_is_not_the_api(server: Served) -> None:
    wrong = OpenAIModel(server.address.removesuffix("/v1"), "tiny", ServerSettings.parse(QUICK))
    with pytest.raises(ServerError, match="nothing at /chat/completions; check the address"):
        wrong.generate(asked("a"), max_tokens=5)


OPTIONS = {
    "max_tokens": failure(400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
                               " 'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter"),
    "temperature": failure(400, "Unsupported value: 'temperature' does not support 0 with this model."),
    "stop": failure(400, "Extra inputs are not permitted", param="stop"),
}  # fmt: skip


def test_options_that_a_server_does_not_know(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    def strict(request: Request) -> object:
        return next((reply for name, reply in OPTIONS.items() if name in request), text_of(request)[::-1])

    server.answer = strict
    answerer = client(server)
    with caplog.at_level(logging.WARNING):
        assert answerer.generate(asked("ab", "cd", "ef"), max_tokens=5, stop=["a"]) == ["b", "dc", "fe"]
    assert caplog.text.count("takes no temperature") == 1
    before = len(server.asked)
    answerer.generate(asked("ab", "cd"), max_tokens=5, stop=["a"])
    assert len(server.asked) == before + 2, "what was learned is kept"
    assert server.asked[-1].keys() == {"model", "messages", "max_completion_tokens"}


def test_too_long_a_prompt_is_no_complaint_of_an_option(server: Served) -> None:
    server.script = [failure(400, "max_tokens is too large: the context is 16 tokens", param="max_tokens")]
    declined, said = client(server, concurrency=1).generate(asked("long", "ab"), max_tokens=5)
    assert (declined, said) == ("", "ba")
    assert "the context is 16 tokens" in declined.declined  # type: ignore[attr-defined]
    assert len(server.asked) == 2


def test_a_declined_prompt_is_named_and_the_run_goes_on(
    server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def filtered(request: Request) -> object:
        bad = "q3" in text_of(request)
        return failure(400, "flagged", code="content_filter") if bad else completion("yes", model="tiny-1")

    server.answer = filtered
    samples = [
        Sample((Turn("user"), Text(f"q{n}?")), {"name": f"row {n}", "answer": "yes", "kind": "any"}) for n in range(6)
    ]
    result = evaluate(Task("t", samples), client(server), folder=tmp_path, batch_size=4)
    assert result.accuracy == pytest.approx(500 / 6), "it counts as an empty answer"
    assert [one.declined for one in result.examples if one.declined] == ["status 400: flagged"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["declined"] == {"row 3": "status 400: flagged"}
    assert summary["answered_by"] == {"tiny-1": 5}
    assert summary["model"] == f"{server.address}#tiny"
    assert ResultsFolder(tmp_path).result() == result
    print_results({"t": result})
    assert "t: declined, row 3: status 400: flagged" in capsys.readouterr().out


@pytest.mark.parametrize("trouble", [failure(500, "CUDA error in this picture"), Reply(200, b"<html>")])
def test_a_prompt_on_which_a_server_always_fails_is_named_while_it_answers_others(trouble: Reply) -> None:
    failed = threading.Event()

    def answer(request: dict) -> Any:
        if text_of(request) == "bad":
            failed.set()
            return trouble
        failed.wait(10)
        time.sleep(0.05)
        return "fine"

    with serving(answer) as server:
        answers = client(server, concurrency=2, attempts=6, backoff=0.05).generate(asked("bad", "good"), max_tokens=4)
        assert answers == ["", "fine"]
        assert re.search(r"attempt 6, while others were answered", answers[0].declined)
        with pytest.raises(ServerError, match="attempt"):  # nobody else is answered
            client(server, attempts=3).generate(asked("bad"), max_tokens=4)


@pytest.mark.parametrize(
    ("message", "text", "declined"),
    [
        ({"content": [{"type": "reasoning", "text": "A?"}, {"type": "text", "text": "B"}]}, "B", ""),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "A"}]}]}, "", "all as a thought"),
        ({"content": None, "reasoning_content": "B, surely"}, "", "all as a thought"),
        ({"content": None, "tool_calls": [{"type": "function"}]}, "", "calls a tool"),
        ({"content": [{"type": "refusal", "refusal": "I cannot"}]}, "", "it refuses: I cannot"),
        ({"content": {"answer": "B"}}, "", "its answer is no text"),
        ({"content": None}, "", ""),
    ],
)
def test_replies_that_hold_no_answer_say_why(server: Served, message: dict, text: str, declined: str) -> None:
    server.script = [Reply(200, {"choices": [{"message": message, "finish_reason": "stop"}]})]
    (answer,) = client(server).generate(asked("x"), max_tokens=4)
    assert answer == text
    assert declined in answer.declined
    assert bool(declined) == bool(answer.declined)


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_replies_in_other_charsets(server: Served, charset: str) -> None:
    content = json.dumps(completion("caf\u00e9"), ensure_ascii=False).encode(charset)
    server.script = [Reply(200, content, {"Content-Type": f"application/json; charset={charset}"})]
    assert client(server).generate(asked("x"), max_tokens=4) == ["caf\u00e9"]


def test_a_server_that_declines_everything_is_an_error(server: Served) -> None:
    server.answer = lambda request: failure(400, "no images here")
    with pytest.raises(ServerError, match="declines all that it is asked: status 400: no images here"):
        client(server).generate(asked(*"abcd"), max_tokens=5)


def test_a_server_cannot_score(server: Served) -> None:
    with pytest.raises(SettingsError, match="--choices generation"):
        client(server).score(asked("a"), [["b"]])


def test_likeness_needs_a_model_that_looks(server: Served) -> None:
    arguments = ["eval", "--model", f"{server.address}#tiny", "--tasks", "scene_vqa", "--shots", "2", "--limit", "1"]
    done = CliRunner().invoke(app, [*arguments, "--choose", "rices"])
    assert isinstance(done.exception, SettingsError)
    assert "shows its vision features" in str(done.exception)


# --- the key


def test_the_key_is_sent_and_never_seen_again(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    monkeypatch.setattr("lorgnette.eval.models.http_client.LONGEST_WAIT", 0.01)
    caplog.set_level(logging.DEBUG)
    echo = f"Incorrect key Bearer {KEY} sent"
    named = completion(echo, model=f"m {KEY}")
    server.script = [failure(429, echo), failure(400, echo), Reply(200, named), Reply(500, echo.encode())]
    answerer = client(server, concurrency=1)
    samples = [Sample((Turn("user"), Text(f"{n}?")), {"name": f"row {n}", "answer": "x"}) for n in range(4)]
    evaluate(Task("t", samples), answerer, folder=tmp_path)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    stored = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert "Incorrect key Bearer [key] sent" in stored
    server.answer = lambda request: failure(401, echo)
    with pytest.raises(ServerError) as caught:
        client(server).generate(samples, max_tokens=3)
    shown = "".join(traceback.format_exception(caught.value))
    for text in (stored, shown, caplog.text, repr(answerer), repr(vars(answerer)), repr(vars(answerer._client))):
        assert KEY not in text
        assert "secret" not in text


def test_a_key_that_no_header_holds_is_not_shown(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("sk-secret\nX: y", "sk-secrét"):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        with pytest.raises(SettingsError, match="characters that no key has") as caught:
            client(server).generate(asked("a"), max_tokens=3)
        assert "secr" not in "".join(traceback.format_exception(caught.value))


def test_where_a_key_comes_from_and_goes_to(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="MY_KEY holds no key"):
        client(server, key_variable="MY_KEY")
    monkeypatch.setenv("MY_KEY", "mine")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client(server, key_variable="MY_KEY").generate(asked("a"), max_tokens=3)
    assert server.headers[-1]["Authorization"] == "Bearer mine"

    def key_for(address: str, **settings: object) -> str:
        return OpenAIModel(address, "m", ServerSettings.parse(settings))._client._key()

    assert key_for("https://api.example.org/v1") == key_for("http://localhost:1/v1") == KEY
    assert key_for("http://api.example.org/v1") == "", "anybody on the way could read it"
    assert key_for("http://api.example.org/v1", key_variable="MY_KEY") == "mine", "unless it is meant"


def test_no_redirect_takes_the_key_along(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda request: "mine now") as other:
        server.script = [Reply(status, b"", {"Location": f"{other.address}/chat/completions"}) for status in (302, 308)]
        for _ in range(2):
            with pytest.raises(ServerError, match="sends us to"):
                client(server).generate(asked("a"), max_tokens=3)
        assert not other.asked


# --- names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http://127.0.0.1:8000/v1", "names no model; write it after the address, as http://127.0.0.1:8000/v1#MODEL"),
        ("ftp://host/v1#m", "is no server's address"),
        ("http:///v1#m", "is no server's address"),
        ("http://host:port/v1#m", "is no address"),
        ("https://me:secret@host/v1#m", "https://host: a password"),
        ("https://host/v1?key=secret#m", "https://host: a password"),
        ("", "an empty name; give a folder"),
        ("transformers:", "names no model"),
        ("no/such/folder/here", "no such folder"),
    ],
)
def test_a_name_that_names_nobody(spec: str, message: str) -> None:
    with pytest.raises(LorgnetteError, match=message) as caught:
        open_model(spec)
    assert "secret" not in str(caught.value)


def test_names_of_servers() -> None:
    for address in ("https://host/v1", "https://host/v1/", "https://host/v1/chat/completions"):
        assert open_model(f"{address}#org/model-7B#x").identity == "https://host/v1#org/model-7B#x"  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="leave out --split"):
        open_model("https://host/v1#m", split=True)


# --- whole evaluations


@pytest.mark.parametrize(
    ("name", "asking"), [("drawings", {}), ("scene_vqa", {"shots": 2, "form": "chat"}), ("mmmu", {}), ("docvqa", {})]
)
def test_behind_a_server_our_model_scores_the_same(name: str, asking: dict, tmp_path: Path) -> None:
    ours = LorgnetteModel(tiny_model(seed=1), tiny_processor())
    data = write_benchmark(tmp_path, name) if name in ("mmmu", "docvqa") else {}
    with serving(answers_of(ours)) as served:
        task = task_named(name, Asking(**asking, data=data, incomplete=bool(data)))
        here, there = (evaluate(task, one, limit=6) for one in (ours, client(served)))
    assert [one.answer for one in there.examples] == [one.answer for one in here.examples]
    assert (there.overall, there.kinds, there.rejected) == (here.overall, here.kinds, here.rejected)
    assert all(one.answer for one in here.examples)
    assert all("image_url" in json.dumps(request["messages"]) for request in served.asked)


def test_few_shot_documents_are_one_turn_of_a_chat(server: Served) -> None:
    server.answer = lambda request: " red\nQuestion: what else?"
    result = evaluate(task_named("scene_vqa", Asking(shots=2)), client(server), limit=2)
    for request in server.asked:
        (turn,) = request["messages"]
        assert [part["type"] for part in turn["content"]] == ["text", *["image_url", "text"] * 3]
        assert turn["content"][-1]["text"].endswith("Answer:")
        assert request["stop"] == ["\n"]
    assert [one.answer for one in result.examples] == [" red"] * 2
    assert result.examples[0].rendered.count("[image ") == 3


def test_the_command(server: Served, tmp_path: Path) -> None:
    server.answer = answers_of(LorgnetteModel(tiny_model(seed=1), tiny_processor()))
    common = ["eval", "--model", f"{server.address}#tiny", "--tasks", "drawings", "--limit", "8", "--json"]
    done = CliRunner().invoke(app, [*common, "--folder", str(tmp_path), "--concurrency", "2", "--per-minute", "60000"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)["drawings"]
    assert summary["overall"]["count"] == 8
    assert summary["model"] == f"{server.address}#tiny"
    asked_once = len(server.asked)
    assert asked_once == 8
    assert CliRunner().invoke(app, [*common, "--folder", str(tmp_path)]).exit_code == 0
    assert len(server.asked) == asked_once, "a finished folder asks nothing"
    wrong = CliRunner().invoke(app, [*common, "--concurrency", "0"])
    assert isinstance(wrong.exception, SettingsError)
    assert "concurrency" in str(wrong.exception)


def test_help_names_who_can_answer_and_how_servers_are_asked() -> None:
    shown = CliRunner().invoke(app, ["eval", "--help"], env={"COLUMNS": "200"}).output
    for word in (
        "transformers:FOLDER_OR_ID",
        "/v1#MODEL",
        "--concurrency",
        "--per-minute",
        "--timeout",
        "--key-variable",
    ):
        assert word in shown


def test_progress_shows_the_rate_and_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console) as bar:
        task = bar.add_task("drawings", total=400)
        for done in (0, 100, 200, 300):
            bar.update(task, completed=done)
            bar.refresh()
            time.sleep(0.01)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"drawings .*300/400.*[0-9.]+/s.*0:00:", shown)


NUMBERS = """
from lorgnette.eval.models import open_model
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task
from lorgnette.sample import Sample, Text, Turn

def numbers(address, folder):
    samples = [Sample((Turn("user"), Text(f"{n}")), {"name": f"q{n}", "answer": str(n)}) for n in range(12)]
    return evaluate(Task("numbers", samples), open_model(address), batch_size=4, folder=folder)
"""


def test_kill_9_loses_the_batch_in_flight(server: Served, tmp_path: Path) -> None:
    arrived, gate = threading.Event(), threading.Event()

    def echo(request: Request) -> str:
        if text_of(request) == "9" and not gate.is_set():
            arrived.set()
            gate.wait(20)
        return text_of(request)

    server.answer = echo
    arguments = (f"{server.address}#tiny", str(tmp_path))
    running = subprocess.Popen([sys.executable, "-c", f"{NUMBERS}\nnumbers{arguments}"])
    assert arrived.wait(60)
    running.send_signal(signal.SIGKILL)
    running.wait()
    gate.set()
    assert len(ResultsFolder(tmp_path).examples()) == 8
    before, here = [body["messages"][0]["content"] for body in server.asked], dict[str, Any]()
    exec(NUMBERS, here)
    result = here["numbers"](*arguments)
    assert (result.accuracy, result.count) == (100, 12)
    again = [body["messages"][0]["content"] for body in server.asked][len(before) :]
    assert set(again) == {"8", "9", "10", "11"}  # of the killed process one may arrive after the signal


# --- the judge


def reads_words(request: Request) -> str:
    return "12" if "zwölf" in text_of(request) else "none"


def test_a_judge_behind_a_server(server: Served, tmp_path: Path) -> None:
    server.answer = reads_words
    truth = Reference(("12",), form="integer")
    answers = ["12", "zwölf Äpfel", "keine Ahnung"]
    examples = [Example(n, f"q{n}", "", "[image] How many?", text, truth, ()) for n, text in enumerate(answers)]
    plain = score({"task": "mathvista", "metric": "mathvista_accuracy"}, examples)
    again = judged(plain, client(server))
    assert (plain.accuracy, again.accuracy) == pytest.approx((100 / 3, 200 / 3))
    assert [one.extracted_by for one in again.examples] == ["", *[f"{server.address}#tiny"] * 2]
    server.answer = lambda request: failure(400, "too long") if "keine" in text_of(request) else "12"
    partly = judged(plain, client(server, concurrency=1))
    assert [one.extracted for one in partly.examples] == [None, "12", None], "what it declines stays as it was"


def test_the_command_with_a_judge(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((name, path),) = write_benchmark(tmp_path, "mathvista").items()
    place = f"{server.address}#tiny"
    server.answer = lambda request: "7" if "Final answer:" in text_of(request) else "It is hard to say."
    arguments = ["--model", place, "--judge", place, "--tasks", name, "--data", f"{name}={path}", "--incomplete"]
    arguments += ["--key-variable", "MY_KEY", "--judge-key-variable", "THEIR_KEY"]
    monkeypatch.setenv("MY_KEY", "mine")
    monkeypatch.setenv("THEIR_KEY", "theirs")
    folder = tmp_path / "out"
    done = CliRunner().invoke(app, ["eval", *arguments, "--json", "--folder", str(folder)])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output)[name]
    assert summary["judged_by"] == {place: 8}
    assert [one["Authorization"] for one in server.headers] == ["Bearer mine"] * 8 + ["Bearer theirs"] * 8
    assert {one.extracted for one in ResultsFolder(folder / name).examples()} == {"7"}
    before = len(server.asked)
    CliRunner().invoke(app, ["eval", *arguments, "--json", "--folder", str(folder)])
    assert len(server.asked) == before, "neither is asked twice"
