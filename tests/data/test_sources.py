"""Conversations from files: rows found, images placed, faults named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorgnette.data.config import MessagesConfig
from lorgnette.data.sources import open_source
from lorgnette.data.sources.messages import MessagesSource
from lorgnette.errors import DataError
from lorgnette.sample import Image, Text

ASK = {"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "what?"}]}
REPLY = {"role": "assistant", "content": "this"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_rows_of_a_folder_are_read_in_order_and_blank_lines_are_nothing(tmp_path):
    write(tmp_path / "b.jsonl", {"messages": [REPLY]}, "", {"messages": [ASK, REPLY]})
    write(tmp_path / "a.jsonl", {"messages": [ASK]})
    source = MessagesSource(tmp_path)
    assert source.size == 3
    assert [source[i].name.removeprefix(str(tmp_path)) for i in range(3)] == [
        "/a.jsonl, row 1",
        "/b.jsonl, row 1",
        "/b.jsonl, row 3",
    ]
    assert source[0].images == (Image(tmp_path / "a.png"),)
    assert source[2].segments[-1] == Text("this", learn=True)


def test_images_in_a_column_of_their_own_take_the_bare_parts(tmp_path):
    bare = {"role": "user", "content": [{"type": "image"}, "and", {"type": "image"}]}
    path = write(tmp_path / "a.jsonl", {"messages": [bare], "images": ["x.png", "y.png"]})
    assert MessagesSource(path)[0].images == (Image(tmp_path / "x.png"), Image(tmp_path / "y.png"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "row 2: expected a JSON object"),
        ("[1]", "row 2: expected a JSON object"),
        ({"text": "x"}, "row 2: expected a JSON object"),
        ({"messages": [{"role": "user"}]}, "row 2: message 0"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "row 2: message 0, part 0"),
        ({"messages": [REPLY], "images": ["x.png"]}, "1 of 1 images have no"),
        ({"messages": 3}, "row 2"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, expected):
    source = MessagesSource(write(tmp_path / "a.jsonl", {"messages": [REPLY]}, row))
    assert source[0].text == "this"
    with pytest.raises(DataError, match=expected):
        source[1]


def test_a_source_opens_from_its_settings(tmp_path):
    path = write(tmp_path / "a.jsonl", {"messages": [ASK, REPLY]})
    assert open_source(MessagesConfig(path=str(path)))[0].text == "what?this"
