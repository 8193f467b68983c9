"""The command `lorgnette serve`: what it prints works, SIGTERM ends it in order, and what cannot be is said."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lorgnette.errors import SettingsError
from lorgnette.hub.export import save
from lorgnette.serve.server import address_of, listen
from lorgnette.serve.start_page import curl_line, python_snippet
from tests.hub.tiny import tiny_model, tiny_processor
from tests.serve.running import Running, png


def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    save(tiny_model(seed=1), tiny_processor(), tmp_path / "tiny")
    command = [sys.executable, "-m", "lorgnette.cli", "serve", str(tmp_path / "tiny"), "--port", "0"]
    with (
        (tmp_path / "log").open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        try:
            first = process.stdout.readline()
            (port,) = re.findall(r"as tiny at http://127\.0\.0\.1:(\d+)", first)
            with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as connection:
                connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            process.wait(60)
        finally:
            process.kill()
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in rest
    assert "Traceback" not in log


def test_the_lines_that_it_prints_work(tiny: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(curl_line(tiny.address, "tiny", False))
    body = words[words.index("-d") + 1]
    assert tiny.post(words[1].removeprefix(tiny.address), body.encode())[0] == 200
    (tmp_path / "image.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(python_snippet(tiny.address, "tiny", False), {})
    assert printed.getvalue().strip()


@pytest.mark.parametrize("name", ["it's", '"quoted"', "a b; rm"])
def test_the_lines_quote_what_they_name(name: str) -> None:
    words = shlex.split(curl_line("http://localhost", name, True))
    assert json.loads(words[words.index("-d") + 1])["model"] == name
    compile(python_snippet("http://localhost", name, True), "snippet", "exec")
    assert "$LORGNETTE_API_KEY" in curl_line("http://localhost", name, True)


def test_a_port_in_use_is_said() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = int(address_of(taken).rpartition(":")[2])
        with pytest.raises(SettingsError, match=f"--port {port}: cannot listen there"):
            listen("127.0.0.1", port)
