"""Keys, hosts, limits of HTTP, headers, and what the log holds."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorgnette.errors import SettingsError
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.api_keys import ApiKeys, read_keys
from lorgnette.serve.http.guard import OPEN_ROUTES, PAGE_FILES, Guard, ServerState
from lorgnette.serve.http.http_protocol import LimitedProtocol
from tests.serve.running import QUESTION, Running, png, running, shown

KEY, OTHER = "a-key-of-some-length", "another-key-of-length"
ROUTES = ("/v1/models", "/v1/models/tiny", "/metrics", "/openapi.json", "/v1/look", "/nothing", "/v1/chat/completions")


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(ApiKeys([KEY, OTHER]), strict=True) as server:
        yield server


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Bearer {KEY[:-1]}", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \u00e4"]
)
def test_every_route_wants_a_key(locked: Running, route: str, given: str) -> None:
    status, headers, body = locked.get(route, **({"Authorization": given} if given else {}))
    assert status == 401
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert headers["www-authenticate"] == "Bearer"


def test_health_readiness_and_the_files_of_the_page_want_none(locked: Running) -> None:
    """The page's files hold nothing that is secret (decision 0023)."""
    assert set(OPEN_ROUTES) == {"/health", "/ready", *PAGE_FILES} and "/" in PAGE_FILES
    assert {locked.get(route)[0] for route in OPEN_ROUTES} == {200}
    assert locked.get("/v1/models", Authorization=f"bearer {OTHER}")[0] == 200


def test_tenants_share_no_prefix(locked: Running) -> None:
    """The time that a cached prefix saves would tell one tenant what another has asked."""
    asked = {**QUESTION, "messages": [{"role": "user", "content": "the cat sat on the mat; " * 8}]}

    def cached(key: str, **more: str) -> int:
        reply = locked.ask({**asked, **more}, Authorization=f"Bearer {key}")[2]
        return reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(KEY) == 0
    assert cached(KEY) > 0
    assert cached(OTHER) == 0
    assert cached(KEY, cache_salt="mine") == 0
    assert cached(OTHER, cache_salt="mine") == 0, "a salt is one key's own"
    assert cached(OTHER, cache_salt="mine") > 0


def test_a_strict_server_refuses_unknown_keys(locked: Running) -> None:
    status, _, reply = locked.ask({**QUESTION, "stoer": True}, Authorization=f"Bearer {KEY}")
    assert (status, reply["error"]["param"]) == (400, "stoer")


def test_keys_are_read_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}  # of the team\n\n")
    assert read_keys(file).owner(f"Bearer {KEY}")
    monkeypatch.setenv("LORGNETTE_API_KEYS", f"{OTHER},")
    assert len(read_keys(file)) == 2
    assert len(read_keys(None)) == 1
    file.write_text("short")
    with pytest.raises(SettingsError, match="line 1") as refused:
        read_keys(file)
    assert "short" not in str(refused.value)
    file.write_text("# nothing")
    with pytest.raises(SettingsError, match="holds no key"):
        read_keys(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_keys(tmp_path / "missing")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST"])
def test_names_of_this_machine_are_allowed(tiny: Running, host: str) -> None:
    assert tiny.get("/health", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "[::2]", "a b"]
)
def test_another_host_is_refused(tiny: Running, host: str) -> None:
    status, _, body = tiny.get("/health", Host=host)
    assert status == 400
    assert host not in json.loads(body)["error"]["message"]


def test_hosts_of_a_server_that_others_reach() -> None:
    def check(host: str, *allowed: str) -> bool:
        config = ServeConfig(host="0.0.0.0", allow_hosts=allowed)
        scope = {"type": "http", "headers": [(b"host", host.encode())], "path": "/health", "method": "GET"}
        statuses: list[int] = []

        async def app(scope: object, receive: object, send: object) -> None:
            statuses.append(200)

        async def send(message: dict) -> None:
            statuses.append(message.get("status", 0))

        run = Guard(app, config, ApiKeys(), ServerState())(scope, None, send)  # type: ignore[arg-type]
        with pytest.raises(StopIteration):
            run.send(None)
        return statuses[0] == 200

    assert check("10.1.2.3:8000") and check("[fd00::1]:80") and check(socket.gethostname())
    assert check("models.example", "models.example") and check("any.example", "*")
    assert not check("models.example")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/nothing", 404), ("GET", "/health/", 404), ("GET", "/v1/models/", 404)),
        *(("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405), ("POST", "/health", 405)),
        *(("OPTIONS", "/v1/chat/completions", 405), ("GET", "/%2e%2e/etc/passwd", 404)),
    ],
)
def test_errors_of_the_framework_have_the_same_shape(tiny: Running, method: str, path: str, status: int) -> None:
    got, headers, body = tiny.raw(method, path)
    assert got == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert headers["x-should-retry"] == "false"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_bodies_are_json(tiny: Running, headers: dict[str, str], status: int) -> None:
    body = json.dumps(QUESTION).encode()
    assert tiny.raw("POST", "/v1/chat/completions", body, headers)[0] == status


def test_headers_of_every_response(tiny: Running) -> None:
    for path in ("/health", "/nothing", "/"):
        _, headers, _ = tiny.get(path, **{"X-Request-Id": "abc-1"})
        assert headers["x-request-id"] == "abc-1"
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "server" not in headers
    for hostile in ("a" * 129, "a b", "ä", "<x>"):
        given = tiny.raw("GET", "/health", None, {"X-Request-Id": hostile})[1]["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{24}", given)


def exchange(server: Running, *parts: bytes) -> bytes:
    """What the server answers to these bytes until it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while received := connection.recv(65536):
                answer += received
        except (ConnectionResetError, BrokenPipeError):
            pass
    return answer


def test_headers_without_end_are_cut(tiny: Running) -> None:
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "
    answer = exchange(tiny, start, *[b"a" * 65536] * 40)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert tiny.get("/health")[0] == 200


def test_slow_headers_are_cut(tiny: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LimitedProtocol, "header_seconds", 0.05)
    assert exchange(tiny, b"GET /health HT") == b""
    assert exchange(tiny) == b"", "nothing at all"


def test_what_is_no_http_is_answered_in_the_same_shape(tiny: Running) -> None:
    answer = exchange(tiny, b"\x16\x03\x01 nothing\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"error"' in answer


def test_large_bodies_are_refused() -> None:
    with running(max_request_bytes=1000, body_seconds=0.2) as server:
        assert server.ask({**QUESTION, "user": "a" * 2000})[0] == 413
        head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        endless = exchange(server, head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, chunk)
        assert endless.startswith(b"HTTP/1.1 413")
        slow = exchange(server, head + b"Connection: close\r\nContent-Length: 100\r\n\r\n{")
        assert slow.startswith(b"HTTP/1.1 408")
        assert server.app.chat.bodies.held == 0


def test_the_log_holds_nothing_that_was_said(tiny: Running, locked: Running, caplog: pytest.LogCaptureFixture) -> None:
    content = png(30, 30, seed=9)
    with caplog.at_level(logging.DEBUG):
        asked = {**shown("canary-of-the-prompt", content), "user": "canary-of-the-user", "canary_key\n": 1}
        assert tiny.ask(asked)[0] == 200
        assert tiny.ask(shown("canary-of-the-prompt", content[:60]))[0] == 400
        assert tiny.get("/canary-of-the-path")[0] == 404
        assert locked.get("/metrics", Authorization="Bearer canary-of-the-key")[0] == 401
    assert "canary" not in caplog.text
    assert "/v1/chat/completions 200" in caplog.text
    assert "no identifier" in caplog.text, "an unknown key that cannot be named is mentioned"


def test_content_is_logged_when_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with running(log_content=True) as server, caplog.at_level(logging.INFO):
        answer = server.ask(QUESTION)[2]["choices"][0]["message"]["content"]
    assert "what colour is the cat?" in caplog.text
    assert repr(answer) in caplog.text
