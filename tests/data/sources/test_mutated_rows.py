"""Rows that hold anything at all: each ends in a Record or is refused, by reading it and by converting it."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow, read_rejected, write_rejected
from lorgnette.data.sources.reading.shards import FOLDER
from lorgnette.data.sources.table import KINDS
from tests.data.sources.made import picture
from tests.data.sources.sift import config

COUNT = 300
A = picture(40, 30)
DEEP: Any = "x"
for _ in range(90):
    DEEP = [DEEP]
TALK = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
    {"role": "assistant", "content": "a", "weight": 1},
]
HELD = {"bytes": A, "path": "a.png"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"images": [HELD], "messages": TALK, "system": "s"},
        {"image": "a.png", "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "completion": "a", "label": True},
        {"instruction": "q", "input": "i", "output": "a", "history": [["h", "i"]]},
        {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [TALK[1]], "images": [HELD]},
    ],
    "instruct": [{"images": [HELD], "texts": [{"user": "q", "assistant": "a", "source": "s"}] * 2}],
    "pairs": [{"image": HELD, "alt": "an alt", "caption": ["a", "b"], "file_name": "a.png"}],
    "interleaved": [{"images": [HELD, None, "a.png"], "texts": [None, "text", None], "alts": ["x"]}],
}

STRANGE: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        float("nan"),
        float("inf"),
        10**4000,
        "",
        " ",
        "\x00",
        "\ud800",
        "\u200b",
        "a" * 9999,
    ),
    *(
        "<image>",
        "[",
        '["a.png"]',
        "[[[[",
        "{",
        "/dev/null",
        "/etc",
        "../a.png",
        "data:",
        "data:image/png;base64,%%",
        "a\x00b",
    ),
    *("file:///x", "ftp://x", "://", "http://[", "nosuch://x", "x" * 300, "null", "9" * 5000, b"", b"\xff", A, A[:50]),
    *([], {}, [[]], [{}], [None], DEEP, {"bytes": None}, {"path": {}}, {"url": []}, {"role": ["user"]}, {"type": {}}),
    *(
        ["user"],
        {"a": [1, 2], "b": [3, 4]},
        {"from": "human"},
        {"content": None},
        {"bytes": [1], "path": 3},
        [HELD, HELD],
    ),
]
KEYS = [
    "role",
    "content",
    "type",
    "text",
    "image",
    "images",
    "url",
    "bytes",
    "path",
    "weight",
    "value",
    "from",
    "base64",
]
KEYS += [
    "tool_calls",
    "source",
    "texts",
    "messages",
    "user",
    "assistant",
    "history",
    "system",
    "chosen",
    "alt",
    "file_name",
]


def mutated(row: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The row with one to four of its values, at any depth, changed, removed, doubled or added."""
    row = copy.deepcopy(row)
    for _ in range(rng.randint(1, 4)):
        holder, key = rng.choice(list(_places(row)) or [(row, "x")])
        change = rng.randrange(4)
        if change == 0 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(rng.choice(STRANGE)))
        elif change == 1:
            del holder[key]
        elif change == 2 and isinstance(holder, dict):
            holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(STRANGE))
        else:
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
    return row


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, one in inner:
        yield value, key
        yield from _places(one)


def rows_like(kind: str) -> Iterator[dict[str, Any]]:
    rng = random.Random(f"rows of {kind}")
    for number in range(COUNT):
        yield mutated(ROWS[kind][number % len(ROWS[kind])], rng)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing outside is asked."""

    def refuse(link: str, *arguments: Any, **more: Any) -> bytes:
        raise Refused("not fetched", link[:80])

    monkeypatch.setattr("lorgnette.data.sources.reading.values.download", refuse)


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_of_anything_is_a_record_or_refused(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(A)
    settings, kept = config(kind, tmp_path), 0
    for row in rows_like(kind):
        try:
            record = KINDS[kind].read({**row, FOLDER: str(tmp_path)}, settings, "row")
        except Refused as refused:
            assert refused.reason and len(refused.reason) < 40
            continue
        assert isinstance(record, Record) and isinstance(record.piece().text, str)
        kept += 1
    assert kept > COUNT // 20, "the mutations leave nothing to read"


@pytest.mark.parametrize("kind", ROWS)
def test_a_file_of_anything_is_converted_to_rows_and_refusals(kind, tmp_path):
    """Arbitrary JSON values as a file's rows: each row is counted, and rejected ones survive a round trip."""
    (tmp_path / "a.png").write_bytes(A)
    name = "metadata.jsonl" if kind == "pairs" else "rows.jsonl"
    written = [_as_json(row) for row in rows_like(kind)]
    (tmp_path / name).write_bytes("\n".join(written).encode("utf-8", "surrogatepass"))
    settings = config(kind, tmp_path / name, **({"merge": False} if kind == "instruct" else {}))
    items = list(KINDS[kind].convert(settings))
    refused = [one for one in items if isinstance(one, RejectedRow)]
    assert len(items) - sum(bool(one.parts) for one in refused) == COUNT
    rows = [one for one in items if not isinstance(one, RejectedRow)]
    assert len(rows) > COUNT // 20
    for row in rows:
        assert isinstance(_read_or_reason(kind, {**row, FOLDER: ""}, settings), Record | str)
    write_rejected(tmp_path / "rejected.jsonl", refused)
    assert list(read_rejected(tmp_path / "rejected.jsonl")) == refused
    assert all(len(one.detail) <= 500 and one.file for one in refused)


def _read_or_reason(kind: str, row: dict[str, Any], settings: Any) -> Record | str:
    try:
        return KINDS[kind].read(row, settings, "row")
    except Refused as refused:
        return refused.reason


def _as_json(row: dict[str, Any]) -> str:
    spell: Callable[[Any], Any] = lambda value: "a.png" if isinstance(value, bytes) else str(value)  # noqa: E731
    return json.dumps(row, default=spell)


def test_strange_rows_are_the_same_in_every_run():
    assert [repr(row) for row in rows_like("chat")] == [repr(row) for row in rows_like("chat")]
    assert Path(__file__).name.startswith("test_")
