"""A client of OpenAI's chat completions that times each event, and server processes to send it to.

It speaks HTTP by itself, over one connection a request: what a client library costs would be counted for the server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate import picture, write_model
from model_step import MODEL
from prepare import memory, tree

from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.language_config import LanguageConfig

TINY = VLMConfig(
    vision=VisionConfig(width=24, layers=2, heads=2, mlp_width=36, patch=14, grid=6),
    connector=PerceiverConfig(projection_width=48, latents=4, depth=2, heads=2, head_width=8, kv_heads=1),
    language=LanguageConfig(vocabulary=397, width=32, layers=2, heads=4, kv_heads=2, head_width=8, mlp_width=48),
    image_token=398,
)
CHAT = "/v1/chat/completions"
START_SECONDS = 300.0
"""Time in which a server must answer."""


@dataclass
class Exchange:
    """One request and its answer. Times are those of `time.perf_counter`."""

    began: float
    status: int = 0
    """Of HTTP; 0 where there was none, 499 where this client went away."""
    body: bytes = b""
    """Of an answer that is not a stream."""
    text: str = ""
    arrivals: list[float] = field(default_factory=list)
    """Times of the events that have text."""
    ended: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    """Of the answer, as the server counts them; else the events that have text."""
    error: str = ""

    @property
    def ttft(self) -> float:
        """Seconds to the first text."""
        return (self.arrivals[0] if self.arrivals else self.ended) - self.began

    @property
    def tpot(self) -> float:
        """Seconds a token after the first."""
        return (self.ended - self.began - self.ttft) / max(1, self.tokens - 1)

    @property
    def itl(self) -> list[float]:
        """Seconds between events."""
        return [after - before for before, after in zip(self.arrivals, self.arrivals[1:], strict=False)]

    @property
    def latency(self) -> float:
        return self.ended - self.began


async def ask(port: int, body: bytes, *, path: str = CHAT, leave_after: float | None = None) -> Exchange:
    """Send a request to this machine and read its answer. leave_after: seconds after which the connection is cut."""
    exchange = Exchange(time.perf_counter())
    try:
        async with asyncio.timeout(leave_after):
            await _exchange(exchange, port, path, body)
    except TimeoutError:
        exchange.status = 499
    except (OSError, EOFError, ValueError) as error:
        exchange.error = f"{type(error).__name__}: {error}"
    exchange.ended = time.perf_counter()
    return exchange


async def _exchange(exchange: Exchange, port: int, path: str, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n" if body else "\r\n"
        writer.write(head.encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = _content(reader, headers)
        if headers.get("content-type", "").startswith("text/event-stream"):
            await _read_events(exchange, content)
        else:
            exchange.body = b"".join([part async for part in content])
        exchange.status = int(status.split()[1])
    finally:
        writer.close()


async def _content(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while part := await reader.read(2**16):
            yield part


async def _read_events(exchange: Exchange, content: AsyncIterator[bytes]) -> None:
    rest = b""
    async for part in content:
        *events, rest = (rest + part.replace(b"\r\n", b"\n")).split(b"\n\n")
        now = time.perf_counter()
        for event in events:
            if event.startswith(b"data: {"):
                _take(exchange, json.loads(event[6:]), now)


def _take(exchange: Exchange, chunk: dict[str, Any], now: float) -> None:
    if "error" in chunk:
        exchange.error = str(chunk["error"])
    text = "".join(one["delta"].get("content") or "" for one in chunk.get("choices", ()))
    if text:
        exchange.arrivals.append(now)
        exchange.text += text
        exchange.tokens += 1
    if usage := chunk.get("usage"):
        exchange.prompt_tokens, exchange.tokens = usage["prompt_tokens"], usage["completion_tokens"]


def data_url(draw: random.Random, size: tuple[int, int]) -> str:
    """A picture of random colours as a JPEG in a data: URL."""
    file = io.BytesIO()
    picture(draw, size).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def shown(url: str) -> dict[str, Any]:
    """The part of a message that shows an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


@dataclass
class ServerProcess:
    """A running server and what it takes of the machine."""

    process: subprocess.Popen[bytes]
    port: int

    def cpu_seconds(self) -> float:
        """Processor seconds of the process and those below it."""
        ticks = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory of the process and those below it."""
        return memory(self.process.pid)[0]

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; status 0 where nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, b""
        except OSError:
            return 0, b""

    def counter(self, name: str) -> float:
        """A counter of the server's /metrics, summed over its labels; 0 where it has none."""
        found = [line.rsplit(" ", 1) for line in self.get("/metrics")[1].decode().splitlines()]
        return sum(float(one[1]) for one in found if one[0].partition("{")[0] == name)


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, *, path: str = "/health", seconds: float = 300
) -> Iterator[ServerProcess]:
    """A server from its first answer until the end of the block. What it prints is shown if it does not start."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        server = ServerProcess(process, port)
        try:
            end = time.monotonic() + START_SECONDS
            while server.get(path)[0] != 200:
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} does not serve: {log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield server
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


LARGER = VLMConfig(
    vision=VisionConfig(width=384, layers=12, heads=6, mlp_width=1536),
    connector=PerceiverConfig(projection_width=1536, latents=64, depth=2, heads=4, head_width=64, kv_heads=2),
    language=LanguageConfig(
        vocabulary=4000, width=576, layers=14, heads=9, kv_heads=3, head_width=64, mlp_width=1536, max_positions=2048
    ),
    image_token=4001,
)
SIZES: dict[str, tuple[VLMConfig, ImageConfig | None]] = {
    "tiny": (TINY, ImageConfig(shortest=28, longest=84, patch=14, grid=6)),
    "small": (MODEL, None),
    "90m": (LARGER, None),
}
"""Models with random weights, of 0.1, 23 and 89 million parameters, and their images."""


@contextlib.contextmanager
def model_folder(given: str) -> Iterator[str]:
    """A folder of a model: the one given, or a new one of one of the `SIZES`."""
    if given not in SIZES:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), *SIZES[given])
        yield folder
