"""A server of chat completions on this computer, for tests: it answers as it is told, and records what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.sample import Sample

Request = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """A status, and a body: an object that becomes JSON, or bytes."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def completion(content: Any, **more: Any) -> dict[str, Any]:
    """The body of an answer. more: of the choice, or `model` and `system_fingerprint` of the whole."""
    whole = {name: more.pop(name) for name in ("model", "system_fingerprint") if name in more}
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"id": "1", "object": "chat.completion", "choices": [choice | more], **whole}


def failure(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
    return Reply(status, {"error": {"message": message, **more}}, headers or {})


class Served:
    """State of a running server. `script` is used up first, one reply for each request; then `answer` is asked."""

    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer, self.script, self.address = answer, list[Reply](), ""
        self.asked: list[Request] = []
        self.headers: list[Mapping[str, str]] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def reply(self, headers: Mapping[str, str], request: Request) -> Reply:
        with self._lock:
            self.asked.append(request)
            self.headers.append(headers)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            scripted = self.script.pop(0) if self.script else None
        try:
            said = scripted or self.answer(request)
        finally:
            with self._lock:
                self.running -= 1
        return said if isinstance(said, Reply) else Reply(200, said if isinstance(said, dict) else completion(said))


@contextlib.contextmanager
def serving(answer: Callable[[Request], Any]) -> Iterator[Served]:
    """A server while the block runs. answer: from a request to a text, a body or a `Reply`."""
    served = Served(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            missing = self.path != "/v1/chat/completions"
            reply = failure(404, f"nothing at {self.path}") if missing else served.reply(dict(self.headers), request)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with contextlib.suppress(ConnectionError):  # whoever asked may have gone
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def text_of(request: Request) -> str:
    """All text of a request."""
    contents = [message["content"] for message in request["messages"]]
    parts = [part for content in contents for part in ([content] if isinstance(content, str) else content)]
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


def answers_of(model: LorgnetteModel) -> Callable[[Request], str]:
    """One of our models as what a server asks, one request at a time."""
    lock = threading.Lock()

    def answer(request: Request) -> str:
        sample = Sample.from_messages(request["messages"], supervised=None)
        with lock:
            return model.generate([sample], max_tokens=request["max_tokens"], stop=request.get("stop", ()))[0]

    return answer
