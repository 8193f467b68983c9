"""The application in a real Ray Serve on this machine. `make slow` installs Ray."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

from lorgnette.hub.export import save
from tests.hub.tiny import tiny_model, tiny_processor
from tests.serve.running import QUESTION, Running


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_serves_the_same_answers(tiny: Running, tmp_path: Path) -> None:
    import ray
    from ray import serve

    from lorgnette.serve.ray_app import build

    save(tiny_model(seed=1), tiny_processor(), tmp_path / "tiny")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build({"model": str(tmp_path / "tiny"), "name": "tiny"}))

        def ask(path: str, body: object = None) -> bytes:
            content = json.dumps(body).encode() if body is not None else None
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, headers)
            with urllib.request.urlopen(request, timeout=120) as reply:
                return bytes(reply.read())

        assert json.loads(ask("/ready")) == {"status": "ok"}
        reply = json.loads(ask("/v1/chat/completions", QUESTION))
        assert reply["choices"] == tiny.ask(QUESTION)[2]["choices"]
        events = ask("/v1/chat/completions", {**QUESTION, "stream": True}).decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
    finally:
        serve.shutdown()
        ray.shutdown()
