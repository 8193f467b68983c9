"""The benchmark of servers runs end to end at a tiny size, and its figures are what they say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("serve")


def test_it_runs_end_to_end(serve: ModuleType, tmp_path: Path) -> None:
    size = ["--model", "tiny", "--sessions", "2", "--most-tokens", "4", "--clients", "2", "--rates", "20"]
    options = ["--servers", "lorgnette", "--mixes", "chat,text", "--repeats", "1", "--results", str(tmp_path)]
    row = serve.main([*size, *options])
    assert json.loads((tmp_path / "serve.jsonl").read_text()) == row
    assert [(one["mix"], one.get("clients"), one.get("rate")) for one in row["measured"]] == [
        *(("chat", 2, None), ("chat", None, 20.0)),
        *(("text", 2, None), ("text", None, 20.0)),
    ]
    for one in row["measured"]:
        assert one["requests"] == (6 if one["mix"] == "chat" else 2), "three turns"
        assert 0 < one["tokens"] <= 4 * one["requests"]
        assert 0 < one["ttft_s"]["p50"] <= one["e2e_s"]["p99"]
        assert one["equal_sessions"] == 2
        assert 0 < one["client_cpu_share"] < 1


def test_figures_of_exchanges(serve: ModuleType) -> None:
    options = serve.parser().parse_args(["--most-ttft", "1", "--most-tpot", "0.3"])
    quick = serve.Exchange(10.0, 200, arrivals=[10.5, 10.7, 11.0], ended=11.0, tokens=3)
    slow = serve.Exchange(10.0, 200, arrivals=[12.0, 14.0], ended=14.0, tokens=2)
    made = serve.figures([quick, slow], 4.0, 1.0, options)
    assert (quick.ttft, quick.tpot, quick.latency) == pytest.approx((0.5, 0.25, 1.0))
    assert quick.itl == pytest.approx([0.2, 0.3])
    assert (made["tokens_per_second"], made["goodput"], made["server_cpu_s_per_token"]) == (1.25, 0.25, 0.2)
    with pytest.raises(SystemExit, match="1 of 1 requests failed; the first: 500 broken"):
        serve.figures([serve.Exchange(0.0, 500, body=b"broken")], 1.0, 1.0, options)


def test_speedups_are_those_at_the_most_clients(serve: ModuleType) -> None:
    rows = [
        {"server": server, "mix": mix, kind: value, "tokens_per_second": speed}
        for server, mix, kind, value, speed in (
            ("lorgnette", "chat", "clients", 1, 20.0),
            ("lorgnette", "chat", "clients", 16, 90.0),
            ("lorgnette", "chat", "rate", 20.0, 70.0),
            ("transformers", "chat", "clients", 16, 30.0),
            ("lorgnette", "text", "clients", 16, 5.0),
        )
    ]
    assert serve.speedups(rows) == {"lorgnette": {"chat": 3.0}}
    assert serve.speedups(rows[2:3]) == serve.speedups([]) == {}


def test_an_unknown_server_is_refused(serve: ModuleType) -> None:
    with pytest.raises(SystemExit, match="--server 'other="):
        serve.main(["--servers", "other"])


def test_sessions_are_the_same_for_all_servers(serve: ModuleType) -> None:
    for mix in serve.MIXES:
        first, again, other = (serve.sessions_of(mix, 2, seed, None) for seed in (1, 1, 2))
        assert first == again != other
    few = serve.sessions_of("fewshot", 2, 1, None)
    images = [{part["image_url"]["url"] for part in one.turns[0] if part["type"] == "image_url"} for one in few]
    assert (len(images[0]), len(images[0] & images[1])) == (8, 5)
