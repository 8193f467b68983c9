"""A server of a tiny model on a free port of this machine, in a thread of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lorgnette.errors import LorgnetteError
from lorgnette.infer.engine.engine import Engine
from lorgnette.serve.app import ServerApp
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.api_keys import ApiKeys
from lorgnette.serve.server import DrainingServer, address_of, listen
from tests.hub.tiny import picture, tiny_model
from tests.infer.engine.driving import engine as tiny_engine

QUESTION = {"messages": [{"role": "user", "content": "what colour is the cat?"}], "max_tokens": 8}


@dataclass
class Running:
    """A server, and ways to ask it."""

    server: DrainingServer
    app: Any
    engine: Any
    address: str
    ended: threading.Event = field(default_factory=threading.Event)
    failure: list[BaseException] = field(default_factory=list)
    """What the server ended with."""

    def run(self) -> None:
        try:
            self.server.run_here()
        except LorgnetteError as error:
            self.failure.append(error)
        self.ended.set()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return response.status, named, response.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.raw("GET", path, None, headers)

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        status, named, body = self.raw("POST", path, content, {"Content-Type": "application/json"} | headers)
        return status, named, json.loads(body)

    def ask(self, value: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], Any]:
        return self.post("/v1/chat/completions", value, **headers)

    def stream(self, value: dict[str, Any]) -> list[str]:
        """The events of a stream, as they are written."""
        content = json.dumps({**value, "stream": True}).encode()
        status, _, body = self.raw("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        assert status == 200, body
        return body.decode().removesuffix("\n\n").split("\n\n")


@contextlib.contextmanager
def running(keys: ApiKeys | None = None, engine: Engine | None = None, **settings: Any) -> Iterator[Running]:
    """A server until the end of the block."""
    engine = engine or tiny_engine(tiny_model(seed=1), max_waiting=16)
    with running_app(ServerApp(engine, serve_config(**settings), keys), engine) as found:
        yield found


def serve_config(**settings: Any) -> ServeConfig:
    return ServeConfig(**{"name": "tiny", "port": 0, "drain_seconds": 5} | settings)


@contextlib.contextmanager
def running_app(app: Any, engine: Engine | None = None) -> Iterator[Running]:
    """Any application behind a server, until the end of the block."""
    started = threading.Event()
    listener = listen("127.0.0.1", 0)
    found = Running(DrainingServer(app, listener, started.set), app, engine, address_of(listener))
    thread = threading.Thread(target=found.run)
    thread.start()
    try:
        assert started.wait(30)
        yield found
    finally:
        if not found.ended.is_set():
            found.server.stop()
        thread.join(30)
        assert not thread.is_alive()


def png(width: int = 40, height: int = 60, seed: int = 0) -> bytes:
    file = io.BytesIO()
    picture(width, height, seed).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def image_part(content: bytes, **more: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(content), **more}}


def shown(text: str, *contents: bytes, **more: str) -> dict[str, Any]:
    """A request with a user's turn of images and a text."""
    parts = [*(image_part(one, **more) for one in contents), {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 8}
