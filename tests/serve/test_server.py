"""The command `lorgnette serve`: what it prints works, SIGTERM ends it in order, and what cannot be is said."""

from __future__ import annotations

import contextlib
import io
import json
import os
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
            seconds = processor_seconds(process.pid)
            lines = [process.stdout.readline()]
            while not lines[-1].startswith("print("):
                lines.append(process.stdout.readline())
            run_as_printed("".join(lines), tmp_path)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log
    assert "Traceback" not in log
    assert seconds < 5, "of processor time until requests are taken"


def processor_seconds(process: int) -> float:
    """Processor time that a process has taken; 0 where the system does not say."""
    file = Path(f"/proc/{process}/stat")
    if not file.exists():
        return 0.0
    user, system = map(int, file.read_text().rpartition(")")[2].split()[11:13])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def run_as_printed(text: str, folder: Path) -> None:
    """Run the curl line in a shell, and the lines of Python."""
    (folder / "image.png").write_bytes(png())
    (command,) = (line for line in text.splitlines() if line.startswith("curl "))
    snippet = text[text.index("import base64") :]
    options = {"cwd": folder, "capture_output": True, "text": True, "timeout": 120}
    reply = subprocess.run(command, shell=True, **options)
    assert json.loads(reply.stdout)["choices"][0]["message"]["role"] == "assistant", reply
    said = subprocess.run([sys.executable, "-c", snippet], **options)
    assert said.returncode == 0 and said.stdout.strip(), said.stderr


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
