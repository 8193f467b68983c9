"""Servers under load: lorgnette's and others', started in turn, asked the same by a client that costs little.

    python benchmarks/serve.py [--servers lorgnette,transformers] [--model small] [--mixes chat,fewshot,documents,text]
        [--clients 1,4,16] [--rates 2] [--sessions 32] [--repeats 3] [--note "..."]

`transformers` is `transformers serve` (pip install 'transformers[serving]'). Any other server that speaks OpenAI's chat
completions is given as `--server 'NAME=COMMAND'`, with {folder} and {port} in the command.

Each repeat starts every server once, in turn (A B A B), with cold caches; a few requests warm it up. `--clients` are as
many sessions side by side, each one request after the other; `--rates` are arrivals a second at random (Poisson).
Greedy answers of one client are compared before anything is said of speed. As `vllm bench serve`: TTFT is the time to
the first text, TPOT (latency - TTFT) / (tokens - 1), ITL the time between events, E2E the latency; goodput counts the
requests a second within `--most-ttft` and `--most-tpot`. Figures are medians over repeats, with their range where it
matters. Threads are as OMP_NUM_THREADS says, to all servers alike. A row goes to `benchmarks/results/serve.jsonl`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate import words
from load_client import SIZES, Exchange, ask, data_url, free_port, model_folder, percentile, serving, shown
from model_step import conditions

COMMANDS = {
    "lorgnette": f"{sys.executable} -m lorgnette.cli serve {{folder}} --port {{port}} --name model --queue-seconds 600",
    "transformers": f"{Path(sys.executable).parent}/transformers serve {{folder}} --port {{port}} --device cpu",
}
NAME = re.compile(r"--name (\S+)")
"""The name under which a command serves the model, where that is not its folder."""
NEEDED = {"transformers": "fastapi"}
"""Package without which a server does not start."""
SHARES = (0.5, 0.95, 0.99)
Part = dict[str, Any]


@dataclass
class Session:
    """Turns of one conversation: what the user says in each. Answers stand between them."""

    turns: list[list[Part]]
    most_tokens: int
    said: list[str] = field(default_factory=list)
    """Answers."""


def _text(draw: random.Random, count: int) -> Part:
    return {"type": "text", "text": words(count, seed=draw.randrange(2**30))}


def chat(draw: random.Random, _: list[str]) -> Session:
    """One image, three turns."""
    first = [shown(data_url(draw, (640, 480))), _text(draw, 12)]
    return Session([first, [_text(draw, 8)], [_text(draw, 8)]], 48)


def fewshot(draw: random.Random, shared: list[str]) -> Session:
    """Eight images, of which five are the same in all requests."""
    images = [*shared, *(data_url(draw, (320, 240)) for _ in range(3))]
    return Session([[part for image in images for part in (shown(image), _text(draw, 6))]], 32)


def documents(draw: random.Random, _: list[str]) -> Session:
    """A page of 980 pixels, and a long answer."""
    return Session([[shown(data_url(draw, (700, 980))), _text(draw, 20)]], 256)


def text(draw: random.Random, _: list[str]) -> Session:
    """Texts of 8 to 120 words."""
    return Session([[_text(draw, draw.randint(8, 120))]], 64)


MIXES: dict[str, Callable[[random.Random, list[str]], Session]] = {
    "chat": chat,
    "fewshot": fewshot,
    "documents": documents,
    "text": text,
}


def sessions_of(mix: str, count: int, seed: int, most_tokens: int | None) -> list[Session]:
    """The same sessions for the same seed; others for another, so that no cache has their images."""
    draw = random.Random(f"{mix}{seed}")
    shared = [data_url(draw, (320, 240)) for _ in range(5)]
    made = [MIXES[mix](draw, shared) for _ in range(count)]
    for session in made if most_tokens is not None else ():
        session.most_tokens = min(session.most_tokens, most_tokens or 1)
    return made


async def converse(port: int, model: str, session: Session) -> list[Exchange]:
    """Have one session, and remember the answers."""
    messages: list[dict[str, Any]] = []
    done = []
    for turn in session.turns:
        messages.append({"role": "user", "content": turn})
        asked = {"model": model, "messages": messages, "max_tokens": session.most_tokens, "temperature": 0}
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        done.append(exchange := await ask(port, json.dumps(asked).encode()))
        session.said.append(exchange.text)
        messages.append({"role": "assistant", "content": exchange.text})
    return done


async def side_by_side(port: int, model: str, sessions: Sequence[Session], clients: int) -> list[Exchange]:
    """So many clients, each with one session after the other."""
    waiting, done = iter(sessions), list[Exchange]()

    async def client() -> None:
        for session in waiting:
            done.extend(await converse(port, model, session))

    await asyncio.gather(*(client() for _ in range(clients)))
    return done


async def arriving(port: int, model: str, sessions: Sequence[Session], rate: float) -> list[Exchange]:
    """Sessions that begin at random times, so many a second."""
    draw, tasks = random.Random(rate), []
    for session in sessions:
        tasks.append(asyncio.create_task(converse(port, model, session)))
        await asyncio.sleep(draw.expovariate(rate))
    return [exchange for one in await asyncio.gather(*tasks) for exchange in one]


def figures(done: Sequence[Exchange], seconds: float, server_cpu: float, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one run. Raises: SystemExit if a request failed."""
    if failed := [one for one in done if one.status != 200 or one.error]:
        said = failed[0].error or failed[0].body[:300].decode(errors="replace")
        raise SystemExit(f"{len(failed)} of {len(done)} requests failed; the first: {failed[0].status} {said}")
    tokens = sum(one.tokens for one in done)
    within = [one for one in done if one.ttft <= options.most_ttft and one.tpot <= options.most_tpot]
    columns = {
        "ttft_s": [one.ttft for one in done],
        "tpot_s": [one.tpot for one in done],
        "itl_s": [gap for one in done for gap in one.itl],
        "e2e_s": [one.latency for one in done],
    }
    made: dict[str, Any] = {"requests": len(done), "tokens": tokens, "tokens_per_second": tokens / seconds}
    made |= {"goodput": len(within) / seconds, "server_cpu_s_per_token": server_cpu / max(1, tokens)}
    for name, values in columns.items():
        made[name] = {"mean": statistics.fmean(values or [0.0])}
        made[name] |= {f"p{100 * share:.0f}": percentile(values, share) for share in SHARES}
    return made


def loads(options: argparse.Namespace) -> Iterator[tuple[str, str, float]]:
    """Each mix with each number of clients and each rate."""
    for mix in options.mixes.split(","):
        yield from ((mix, "clients", int(one)) for one in options.clients.split(",") if one)
        yield from ((mix, "rate", float(one)) for one in options.rates.split(",") if one)


def measure(name: str, command: str, folder: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All loads on one server, which is started for them."""
    port = free_port()
    words_of = shlex.split(command.format(folder=shlex.quote(folder), port=port))
    model = named[1] if (named := NAME.search(command)) else folder
    with serving(words_of, port) as server:
        warm = [session for mix in options.mixes.split(",") for session in sessions_of(mix, 1, -1, 4)]
        asyncio.run(side_by_side(port, model, warm, 1))
        for number, (mix, kind, value) in enumerate(loads(options)):
            sessions = sessions_of(mix, options.sessions, number, options.most_tokens)
            began, cpu, own = time.perf_counter(), server.cpu_seconds(), time.process_time()
            run = side_by_side(port, model, sessions, int(value)) if kind == "clients" else None
            done = asyncio.run(run or arriving(port, model, sessions, value))
            seconds = time.perf_counter() - began
            made = {"server": name, "mix": mix, kind: value}
            made |= figures(done, seconds, server.cpu_seconds() - cpu, options)
            made["client_cpu_share"] = (time.process_time() - own) / seconds
            made["answers"] = [[text.strip() for text in session.said] for session in sessions]
            yield made


def median_of(runs: Sequence[Any]) -> Any:
    """The median of equal structures, number by number; what is no number is that of the first."""
    first = runs[0]
    if isinstance(first, dict):
        return {name: median_of([run[name] for run in runs]) for name in first}
    return round(statistics.median(runs), 4) if isinstance(first, float) else first


def summary(runs: Sequence[dict[str, Any]], oracle: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Repeats of one load on one server; how many of its sessions were answered as by the first server."""
    pairs = list(zip(runs[0]["answers"], oracle[0]["answers"], strict=True))
    made: dict[str, Any] = median_of(
        [{name: value for name, value in run.items() if name != "answers"} for run in runs]
    )
    speeds = [run["tokens_per_second"] for run in runs]
    made["tokens_per_second_range"] = [round(min(speeds), 2), round(max(speeds), 2)]
    made["equal_sessions"] = sum(mine == other for mine, other in pairs)
    return made


def speedups(measured: Sequence[dict[str, Any]], base: str = "transformers") -> dict[str, dict[str, float]]:
    """Tokens a second over those of one server, by server and mix, at the most clients."""
    most = max((one.get("clients", 0) for one in measured), default=0)
    speeds = {
        (one["server"], one["mix"]): one["tokens_per_second"] for one in measured if one.get("clients", 0) == most > 0
    }
    made: dict[str, dict[str, float]] = {}
    for (server, mix), speed in speeds.items():
        if server != base and (base, mix) in speeds:
            made.setdefault(server, {})[mix] = round(speed / speeds[base, mix], 3)
    return made


def commands_of(options: argparse.Namespace) -> dict[str, str]:
    """The servers to be measured. Raises: SystemExit for one that is not known, or cannot start."""
    given = dict(one.split("=", 1) for one in options.server)
    for name in [name for name in options.servers.split(",") if name and name not in given]:
        if name not in COMMANDS:
            raise SystemExit(f"--servers {name}: give its command as --server '{name}=...'")
        if (package := NEEDED.get(name)) and importlib.util.find_spec(package) is None:
            raise SystemExit(f"--servers {name}: it needs {package}; run: pip install 'transformers[serving]'")
        given[name] = COMMANDS[name]
    return dict(sorted(given.items(), key=lambda pair: pair[0] != "lorgnette"))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--servers", default="lorgnette,transformers")
    made.add_argument("--server", action="append", default=[], metavar="NAME=COMMAND")
    made.add_argument("--model", default="small", help=f"a folder, or random weights: {', '.join(SIZES)}")
    made.add_argument("--mixes", default=",".join(MIXES))
    made.add_argument("--clients", default="1,4,16")
    made.add_argument("--rates", default="", help="sessions a second, as 1,2")
    made.add_argument("--sessions", type=int, default=32)
    made.add_argument("--most-tokens", type=int, help="of an answer, where the mix has more")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--most-ttft", type=float, default=1.0)
    made.add_argument("--most-tpot", type=float, default=0.1)
    made.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    made.add_argument("--note", default="")
    return made


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser().parse_args(arguments)
    commands = commands_of(options)
    found: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in commands}
    stopped = ""
    with model_folder(options.model) as folder:
        try:
            for repeat in range(options.repeats):
                for name, command in commands.items():
                    print(f"repeat {repeat + 1} of {options.repeats}: {name}", file=sys.stderr, flush=True)
                    found[name].append(list(measure(name, command, folder, options)))
        except (KeyboardInterrupt, SystemExit) as error:  # the repeats that all servers have had are not lost
            if not min(map(len, found.values())):
                raise
            stopped = str(error) or "interrupted"
            print(stopped, file=sys.stderr)
    repeats = min(map(len, found.values()))
    found = {name: runs[:repeats] for name, runs in found.items()}
    oracle = next(iter(found.values()))
    measured = [
        summary([run[at] for run in runs], [run[at] for run in oracle])
        for at in range(len(oracle[0]))
        for runs in found.values()
    ]
    row: dict[str, Any] = {"benchmark": "serve", "model": options.model}
    own = f"{Path(sys.executable).parent}/"
    row["servers"] = {name: command.replace(own, "") for name, command in commands.items()}
    row |= {"sessions": options.sessions, "repeats": repeats, "stopped": stopped, "measured": measured}
    row["speedups"] = speedups(measured)
    row["limits_s"] = {"ttft": options.most_ttft, "tpot": options.most_tpot}
    row |= conditions(options.note)
    print(json.dumps(row, indent=1))
    with (options.results / "serve.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


if __name__ == "__main__":
    main()
