"""A server under mixed load for an hour: its memory does not grow, nothing is a fault, and /health stays quick.

    python benchmarks/soak.py [--minutes 60] [--rate 4] [--model small] [--workers 1] [--note "..."]

Requests arrive at random (Poisson), `--rate` of them a second: texts, images, several answers, structured output, as
streams and at once. One in twenty is cut off by its client, one in twenty is wrong. The server is a process of its own.
Fails unless the memory of the server grows by less than `--most-growth` MB a minute after a warm-up (10 minutes, or a
third of a shorter run, in which caches and the allocator still fill), no status is 5xx but 503, no good request fails,
99 of 100 answers of /health come within `--health-ms`, and SIGTERM ends the server with status 0. A row goes to
`benchmarks/results/soak.jsonl`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from generate import words
from load_client import (
    SIZES,
    Exchange,
    ServerProcess,
    ask,
    data_url,
    free_port,
    model_folder,
    percentile,
    serving,
    shown,
)
from model_step import conditions

ABORTED = WRONG = 0.05
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
BUSY = (429, 503)
"""Statuses of a server that has enough to do: no fault."""
Maker = Callable[["Load"], dict[str, Any]]


class Load:
    """Draws requests."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.pictures = [
            data_url(self.draw, (self.draw.randint(30, 400), self.draw.randint(30, 400))) for _ in range(60)
        ]

    def text(self) -> dict[str, Any]:
        """A question, half of them seen before."""
        return {"type": "text", "text": words(self.draw.randint(3, 40), seed=self.draw.randint(0, 200))}

    def request(self, *images: str, **more: Any) -> dict[str, Any]:
        content = [*(shown(one) for one in images), self.text()]
        asked = {"messages": [{"role": "user", "content": content}], "max_tokens": self.draw.randint(1, 48)}
        return asked | {"stream": self.draw.random() < 0.5} | more

    def image(self) -> str:
        return self.draw.choice(self.pictures)

    def good(self) -> bytes:
        """A request that is answered."""
        return json.dumps(self.draw.choice(GOOD)(self)).encode()

    def wrong(self) -> bytes:
        """A request that is refused."""
        made = self.draw.choice(BAD)(self)
        return json.dumps(made).encode()[: -self.draw.randint(1, 9) if self.draw.random() < 0.2 else None]


def _sampled(load: Load) -> dict[str, Any]:
    return load.request(temperature=1.0, n=load.draw.randint(1, 4), logprobs=True, top_logprobs=5)


def _structured(load: Load) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    return load.request(load.image(), response_format=form, max_tokens=60)


def _damaged(load: Load) -> dict[str, Any]:
    return load.request(load.image()[: load.draw.randint(30, 400)])


GOOD: tuple[Maker, ...] = (
    lambda load: load.request(),
    lambda load: load.request(load.image()),
    lambda load: load.request(data_url(load.draw, (load.draw.randint(20, 500), 64))),
    lambda load: load.request(load.image(), load.image(), load.image()),
    lambda load: load.request(load.image(), stop=["e", "zz"]),
    lambda load: load.request(ignore_eos=True, max_tokens=64),
    _sampled,
    _structured,
)
BAD: tuple[Maker, ...] = (
    _damaged,
    lambda load: load.request("/etc/passwd"),
    lambda load: load.request("http://169.254.169.254/latest"),
    lambda load: load.request(temperature=9),
    lambda load: load.request(model="another"),
    lambda load: load.request(tools=[{"type": "function"}]),
    lambda load: load.request(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}),
    lambda load: load.request(top_p=2),
    lambda load: {"messages": []},
)


class Soak:
    """One run: what came of its requests, and the server's memory and health meanwhile."""

    def __init__(self, server: ServerProcess, rate: float, seconds: float) -> None:
        self.server, self.rate, self.seconds = server, rate, seconds
        self.load = Load(0)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.health: list[float] = []
        self.resident: list[tuple[float, int]] = []
        """Seconds since the beginning, and bytes."""
        self.latencies: list[float] = []

    async def run(self) -> None:
        began, tasks = time.monotonic(), set()
        watching = asyncio.create_task(self._watch(began))
        while (now := time.monotonic() - began) < self.seconds:
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(min(self.load.draw.expovariate(self.rate), max(0.0, self.seconds - now)))
        await asyncio.gather(*tasks)
        watching.cancel()

    async def _one(self) -> None:
        kind = self.load.draw.random()
        if kind < WRONG:
            self._note("wrong", await ask(self.server.port, self.load.wrong()), range(400, 500))
        elif kind < WRONG + ABORTED:
            leave_after = self.load.draw.expovariate(10)
            self._note("aborted", await ask(self.server.port, self.load.good(), leave_after=leave_after), (200, 499))
        else:
            exchange = await ask(self.server.port, self.load.good())
            self._note("good", exchange, (200,))
            if exchange.status == 200:
                self.latencies.append(exchange.latency)

    def _note(self, kind: str, exchange: Exchange, expected: Sequence[int]) -> None:
        self.counts[f"{kind} {exchange.status}"] += 1
        if exchange.error or exchange.status not in (*expected, *BUSY):
            said = f"{kind}: {exchange.status} {exchange.error} {exchange.body[:300].decode(errors='replace')}"
            self.failures.append(said)

    async def _watch(self, began: float) -> None:
        """Ask /health once a second, and read the memory every five."""
        number = 0
        while True:
            exchange = await ask(self.server.port, b"", path="/health")
            self.health.append(exchange.latency)
            if exchange.status != 200:
                self.failures.append(f"/health: {exchange.status} {exchange.error}")
            if number % 5 == 0:
                self.resident.append((time.monotonic() - began, self.server.resident()))
            number += 1
            await asyncio.sleep(1)

    def growth(self) -> float:
        """Megabytes a minute by which the memory grew after the warm-up: the slope of a straight line."""
        warm = min(600.0, self.seconds / 3)
        counted = [(seconds / 60, size / 1e6) for seconds, size in self.resident if seconds >= warm]
        if len(counted) < 3:
            raise SystemExit(f"{len(counted)} readings of the memory after the warm-up; soak for longer")
        return statistics.linear_regression(*zip(*counted, strict=True)).slope


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--minutes", type=float, default=60)
    made.add_argument("--rate", type=float, default=4.0, help="requests a second")
    made.add_argument("--model", default="small", help=f"a folder, or random weights: {', '.join(SIZES)}")
    made.add_argument("--workers", type=int, default=1)
    made.add_argument("--health-ms", type=float, default=50.0)
    made.add_argument("--most-growth", type=float, default=1.0, help="of the server's memory, in MB a minute")
    made.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    made.add_argument("--note", default="")
    return made


def command_of(folder: str, port: int, workers: int) -> list[str]:
    """Caches are small, so that they are full when the warm-up ends."""
    limits = ["--kv-mib", "16", "--image-cache-mib", "4", "--max-waiting", "256"]
    more = ["--workers", str(workers)] if workers > 1 else []
    return [sys.executable, "-m", "lorgnette.cli", "serve", folder, "--port", str(port), *limits, *more]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser().parse_args(arguments)
    with (
        model_folder(options.model) as folder,
        serving(command_of(folder, port := free_port(), options.workers), port) as server,
    ):
        soak = Soak(server, options.rate, 60 * options.minutes)
        cpu = time.process_time()
        asyncio.run(soak.run())
        row: dict[str, Any] = {
            "benchmark": "soak",
            "minutes": options.minutes,
            "rate": options.rate,
            "model": options.model,
            "workers": options.workers,
            "replies": dict(sorted(soak.counts.items())),
            "failures": len(soak.failures),
            "resident_mb": [round(soak.resident[at][1] / 1e6, 1) for at in (0, -1)],
            "growth_mb_per_minute": round(soak.growth(), 3),
            "health_ms": {f"p{share}": round(1000 * percentile(soak.health, share / 100), 1) for share in (50, 95, 99)},
            "latency_s": {f"p{share}": round(percentile(soak.latencies, share / 100), 3) for share in (50, 95, 99)},
            "server_cpu_seconds": round(server.cpu_seconds(), 1),
            "client_cpu_seconds": round(time.process_time() - cpu, 1),
        }
        server.process.send_signal(signal.SIGTERM)
        row["exit_status"] = server.process.wait(60)
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (options.results / "soak.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    problems = [*soak.failures[:5]]
    if (growth := row["growth_mb_per_minute"]) >= options.most_growth:
        problems.append(f"the memory grows by {growth} MB a minute")
    problems += ["/health is late"] if row["health_ms"]["p99"] > options.health_ms else []
    problems += [f"exit status {row['exit_status']}"] if row["exit_status"] else []
    if problems:
        raise SystemExit("the server did not hold: " + "; ".join(problems))
    return row


if __name__ == "__main__":
    main()
