"""Conversations in every form that people write: what is said and learned, where images stand, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.conversations import read
from lorgnette.data.sources.reading.shards import FOLDER
from lorgnette.data.sources.table import KINDS
from lorgnette.sample import Image, Text, Turn
from tests.data.sources.made import picture
from tests.data.sources.sift import config

A, B = picture(seed=1), picture(seed=2)
NAN = float("nan")


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def record_of(row: dict[str, Any], folder: Path | str = "") -> Record:
    settings = config("chat", "x")
    return read({**row, FOLDER: str(folder)}, settings, "row")  # type: ignore[arg-type]


def spelled(record: Record) -> str:
    """A record as one line: roles in brackets, images as `#`, supervised text in capitals, units parted by `|`."""
    parts = []
    for number, unit in enumerate(record.units):
        segments = record.piece(number, number + 1).segments if number == 0 else unit
        for one in segments:
            if isinstance(one, Turn):
                parts.append(f"[{one.role[0]}]")
            elif isinstance(one, Image):
                parts.append("#")
            else:
                parts.append(one.text.upper() if one.supervised else one.text)
        parts.append("|")
    return "".join(parts)


FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "openai": ({"messages": [user("q"), said("a")]}, "[u]q[a]A|"),
    "developer is system": (
        {"messages": [{"role": "developer", "content": "s"}, user("q"), said("a")]},
        "[s]s[u]q[a]A|",
    ),
    "names in any case": ({"messages": [user("q"), {"role": "Assistant", "content": "a"}]}, "[u]q[a]A|"),
    "messages as JSON text": ({"messages": json.dumps([user("q"), said("a")])}, "[u]q[a]A|"),
    "a struct of lists": ({"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}, "[u]q[a]A|"),
    "text parts": (
        {"messages": [user([{"type": "input_text", "text": "q"}]), said([{"type": "output_text", "text": "a"}])]},
        "[u]q[a]A|",
    ),
    "parts without type": ({"messages": [user([{"text": "q"}]), said(["a"])]}, "[u]q[a]A|"),
    "one part alone": ({"messages": [user({"type": "text", "text": "q"}), said("a")]}, "[u]q[a]A|"),
    "content null": ({"messages": [user(None), said("a")]}, "[u][a]A|"),
    "prompt and completion": ({"prompt": "q", "completion": "a"}, "[u]q[a]A|"),
    "prompt and completion as messages": ({"prompt": [user("q")], "completion": [said("a")]}, "[u]q[a]A|"),
    "preference": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "[u]q[a]A|"),
    "preference, implicit prompt": (
        {"chosen": [user("q"), said("a")], "rejected": [user("q"), said("b")]},
        "[u]q[a]A|",
    ),
    "preference beside messages": (
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}},
        "[u]q[a]A|",
    ),
    "preference that repeats messages": (
        {"messages": [user("q"), said("a")], "chosen": [user("q"), said("a")]},
        "[u]q[a]A|",
    ),
    "wanted completion": ({"prompt": "q", "completion": "a", "label": True}, "[u]q[a]A|"),
    "alpaca": ({"instruction": "do", "input": "it", "output": "a", "system": "s"}, "[s]s[u]do\nit[a]A|"),
    "alpaca with history": (
        {"instruction": "q", "input": "", "output": "a", "history": [["h", "i"]]},
        "[u]h[a]I|[u]q[a]A|",
    ),
    "query and response": ({"query": "q", "response": "a"}, "[u]q[a]A|"),
    "a blank answer": ({"messages": [user("q"), said(""), user("r"), said("a")]}, "[u]q[a][u]r[a]A|"),
    "an answer of spaces": (
        {"messages": [user("q"), said(" \n\u200b"), user("r"), said("a")]},
        "[u]q[a] \n\u200b[u]r[a]A|",
    ),
    "a blank last answer": ({"messages": [user("q"), said("a"), user("r"), said(" ")]}, "[u]q[a]A|"),
    "weight 0": ({"messages": [user("q"), said("b", weight=0), user("r"), said("a", weight=1)]}, "[u]q[a]b[u]r[a]A|"),
    "train false": ({"messages": [user("q"), said("b", train=False), user("r"), said("a")]}, "[u]q[a]b[u]r[a]A|"),
    "a struct of bytes": ({"messages": [user("q"), said("a")], "images": [{"bytes": A, "path": None}]}, "[u]#q[a]A|"),
    "image beside images": (
        {"messages": [user("q"), said("a")], "images": [], "image": {"bytes": A, "path": None}},
        "[u]#q[a]A|",
    ),
    "a list as JSON text": (
        {
            "messages": [user("<image>q<image>"), said("a")],
            "images": json.dumps(["data:;base64," + base64.b64encode(A).decode()] * 2),
        },
        "[u]#q#[a]A|",
    ),
    "null among images": ({"messages": [user("<image>q"), said("a")], "images": [None, A]}, "[u]#q[a]A|"),
    "placeholder without image": ({"messages": [user("<image>q"), said("a")]}, "[u]<image>q[a]A|"),
    "image part with bytes": (
        {"messages": [user([{"type": "image", "bytes": A, "path": "x.png"}, "q"]), said("a")]},
        "[u]#q[a]A|",
    ),
    "image part without type": (
        {"messages": [user([{"image": {"bytes": A, "path": None}}, {"text": "q"}]), said("a")]},
        "[u]#q[a]A|",
    ),
    "input_image": (
        {
            "messages": [
                user([{"type": "input_image", "image_url": "data:image/png;base64," + base64.b64encode(A).decode()}]),
                said("a"),
            ]
        },
        "[u]#[a]A|",
    ),
    "base64 source": (
        {
            "messages": [
                user([{"type": "image", "source": {"type": "base64", "data": base64.b64encode(A).decode()}}]),
                said("a"),
            ]
        },
        "[u]#[a]A|",
    ),
    "keys of parquet": (
        {
            "messages": [
                user(
                    [{"type": "text", "text": "q", "image": None, "image_url": {"url": None}}],
                    tool_calls=None,
                    weight=None,
                ),
                said("a", tool_calls=[]),
            ]
        },
        "[u]q[a]A|",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read(name):
    row, expected = FORMS[name]
    assert spelled(record_of(row)) == expected


NOTHING = [
    "",
    " ",
    None,
    [],
    [None],
    [""],
    NAN,
    [NAN],
    {"bytes": None, "path": None},
    [{"bytes": None, "path": ""}],
    b"",
]


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("number", range(len(NOTHING)))
def test_what_stands_for_no_image_is_none_and_a_place_for_it_is_refused(column, number):
    value = NOTHING[number]
    assert spelled(record_of({"messages": [user("q"), said("a")], column: value})) == "[u]q[a]A|"
    asked = {"messages": [user("<image>q"), said("a")], column: value}
    if value in (None, []):
        assert [reason for reason, _ in record_of(asked).doubts] == ["<image> and no image"]
    else:
        with pytest.raises(Refused, match="null or empty, and the text has 1 places") as caught:
            record_of(asked)
        assert caught.value.reason == "no image"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a tool's answer": ({"messages": [user("q"), {"role": "tool", "content": "x"}, said("a")]}, "tool calls"),
    "a call": ({"messages": [user("q"), said(None, tool_calls=[{"function": {}}]), said("a")]}, "tool calls"),
    "function_call": ({"conversations": [{"from": "function_call", "value": "x"}]}, "tool calls"),
    "observation": ({"conversations": [{"from": "Observation", "value": "x"}]}, "tool calls"),
    "a role that is a list": ({"messages": [{"role": ["user"], "content": "q"}]}, "role"),
    "a role that is a mapping": ({"messages": [{"role": {}, "content": "q"}]}, "role"),
    "no role": ({"messages": [{"content": "q"}]}, "role"),
    "blank answers alone": ({"messages": [user("q"), said(" \n")]}, "no answer"),
    "an unwanted completion": ({"prompt": "q", "completion": "a", "label": False}, "rejected answer"),
    "chosen text without prompt": ({"chosen": "Human: q Assistant: a", "rejected": "b"}, "no question"),
    "messages that are no JSON": ({"messages": "[{"}, "not JSON"),
    "messages that are a number": ({"messages": 3}, "wrong type"),
    "no messages": ({"messages": []}, "no text"),
    "a video": ({"messages": [user([{"type": "video", "video": "x"}]), said("a")]}, "unknown part"),
    "a type that is a list": ({"messages": [user([{"type": ["text"], "text": "q"}]), said("a")]}, "unknown part"),
    "a weight that is none": ({"messages": [user("q"), said("a", weight="no")]}, "wrong type"),
    "images that are a number": ({"messages": [user("q"), said("a")], "images": 5}, "wrong type"),
    "an unknown column": ({"text": "q"}, "no column"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_reason(name):
    row, reason = REFUSED[name]
    with pytest.raises(Refused) as caught:
        record_of(row)
    assert caught.value.reason == reason and len(str(caught.value)) < 400


def test_a_message_holds_little_of_what_was_wrong():
    for row in ({"messages": [{"role": "x" * 10**6, "content": "q"}]}, {"messages": [user([{"type": "y" * 10**6}])]}):
        with pytest.raises(Refused) as caught:
            record_of(row)
        assert len(str(caught.value)) < 400


def test_images_are_found_in_a_folder_of_their_own(tmp_path):
    """LLaVA's `--image_folder`: rows in one folder, images in another."""
    (tmp_path / "images" / "coco").mkdir(parents=True)
    (tmp_path / "images" / "coco" / "1.png").write_bytes(A)
    row = {
        "image": "coco/1.png",
        "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}],
    }
    settings = config("chat", "ann/x.json", image_folder=str(tmp_path / "images"))
    record = KINDS["chat"].read({**row, FOLDER: str(tmp_path / "ann")}, settings, "row")
    assert len(record.images) == 1 and any(isinstance(one, Text) and one.supervised for one in record.units[0])
