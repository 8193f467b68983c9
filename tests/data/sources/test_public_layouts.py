"""Rows in layouts that others have read wrongly, and that are read rightly here."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest

from lorgnette.inputs.image import open_image
from lorgnette.sample import Image, Text
from tests.data.sources.made import html, parquet, picture, record, warc
from tests.data.sources.sift import config, sift

A, B = picture(seed=0), picture(seed=1)
HUMAN, GPT = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A tile."}
PLAIN = [{"from": "human", "value": "What is it?"}, GPT]
TWO = [{"from": "human", "value": "<image>\n<image>\nWhich?"}, GPT]
TALK = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A tile."}]
PARTS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A tile."}]},
]
SPLIT = [*PLAIN[:1], GPT, {"from": "human", "value": "And <image> this?"}, GPT]

CHATS: dict[str, tuple[dict[str, Any], int | None]] = {
    "no image key": ({"conversations": PLAIN}, 0),
    "image is null": ({"image": None, "conversations": PLAIN}, 0),
    "no images": ({"images": [], "conversations": PLAIN}, 0),
    "image is a text": ({"image": "a.png", "conversations": [HUMAN, GPT]}, 1),
    "image is a list": ({"image": ["a.png"], "conversations": [HUMAN, GPT]}, 1),
    "no place": ({"image": "a.png", "conversations": PLAIN}, 1),
    "two images": ({"images": ["a.png", "b.png"], "conversations": TWO}, 2),
    "a place in a later turn": ({"image": "a.png", "conversations": SPLIT}, 1),
    "more places than images": ({"images": ["a.png"], "conversations": TWO}, None),
    "content is a text": ({"messages": TALK}, 0),
    "content is a list": ({"images": ["a.png"], "messages": PARTS}, 1),
    "bytes and path": (
        {"images": [{"bytes": None, "path": "a.png"}], "messages": PARTS}, 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_images_of_conversations(name, tmp_path):
    row, images = CHATS[name]
    (tmp_path / "a.png").write_bytes(A)
    (tmp_path / "b.png").write_bytes(B)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    found = sift(config("chat", tmp_path / "rows.jsonl"), tmp_path)
    assert [len(one.piece().images) for one in found.records] == ([] if images is None else [images]), found.details
    assert found.refused.total() == (images is None)
    assert all("A tile." in one.piece().text for one in found.records)


def test_text_and_lists_of_parts_stand_in_one_file(tmp_path):
    (tmp_path / "a.png").write_bytes(A)
    rows = [{"messages": TALK}, {"images": ["a.png"], "messages": PARTS}, {"messages": TALK}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = sift(config("chat", tmp_path / "rows.jsonl"), tmp_path)
    assert [len(one.piece().images) for one in found.records] == [0, 1, 0]


@pytest.mark.parametrize("kind", ["chat", "instruct"])
def test_an_image_of_parquet_is_a_dict_of_bytes_and_path(kind, tmp_path):
    texts = [{"user": "What is it?", "assistant": "A tile."}]
    row = {"messages": PARTS} if kind == "chat" else {"texts": texts}
    path = parquet(tmp_path / "a.parquet", [row | {"images": [{"bytes": A, "path": "elsewhere.png"}]}])
    (record,) = sift(config(kind, path), tmp_path).records
    assert [image.source for image in record.piece().images] == [A]


def test_paths_are_relative_to_the_file_of_rows(tmp_path):
    (tmp_path / "sets" / "images").mkdir(parents=True)
    (tmp_path / "sets" / "images" / "a.png").write_bytes(A)
    (tmp_path / "sets" / "rows.json").write_text(json.dumps([{"image": "images/a.png", "conversations": [HUMAN, GPT]}]))
    (found,) = sift(config("chat", tmp_path / "sets" / "rows.json"), tmp_path).records
    assert [image.source for image in found.piece().images] == [A]


def test_a_question_alone_in_a_long_conversation_is_not_learned(tmp_path):
    rows = [{"messages": [*TALK, {"role": "user", "content": "And?"}]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (found,) = sift(config("chat", tmp_path / "rows.json"), tmp_path).records
    assert [one.text for one in found.piece().segments if isinstance(one, Text) and one.supervised] == ["A tile."]
    assert not any(isinstance(one, Image) for one in found.piece().segments)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_sixteen_bits_is_read_in_rows(form, tmp_path):
    file = io.BytesIO()
    PIL.Image.fromarray(np.array([[0, 256, 32768, 65535]] * 4, np.uint16)).save(file, form)
    content = base64.b64encode(file.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/{form.lower()};base64,{content}"}}
    row = {"messages": [{"role": "user", "content": [part]}, TALK[1]]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (found,) = sift(config("chat", tmp_path / "rows.json"), tmp_path).records
    assert np.asarray(open_image(found.piece().images[0].source))[0, :, 0].tolist() == [0, 1, 128, 255]


PAGES = {
    "latin-1 in meta": ("<meta charset=iso-8859-1>", "latin-1", "Un café à côté"),
    "windows-1252 in meta": ("<meta charset=windows-1252>", "cp1252", "“Quoted” – it’s"),
    "GB2312 in http-equiv": (
        "<meta http-equiv=Content-Type content='text/html; charset=gb2312'>",
        "gb2312",
        "你好世界",
    ),
    "Shift JIS in meta": ("<meta charset=shift_jis>", "shift_jis", "こんにちは"),
    "UTF-16 with a mark": ("", "utf-16", "Привет"),
    "UTF-8 with a mark": ("", "utf-8-sig", "Привет"),
    "UTF-8 without a word": ("", "utf-8", "Привет"),
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_decoded_as_they_say(name, tmp_path):
    meta, encoding, words = PAGES[name]
    text = html("One", f"<p>{words} stands in a paragraph that is long enough to be kept.</p>").replace(
        "<head>", f"<head>{meta}"
    )
    (tmp_path / "a.html").write_bytes(text.encode(encoding))
    (found,) = sift(config("webpages", tmp_path / "a.html", need_both=False, fetch=False), tmp_path).records
    assert words in found.piece().text


@pytest.mark.parametrize(
    ("kind", "more", "encoding", "pack"),
    [
        ("text/html; charset=iso-8859-1", "", "latin-1", bytes),
        ("text/html; charset=windows-1251", "", "cp1251", bytes),
        ("text/html", "Content-Encoding: gzip\r\n", "utf-8", "gzip"),
        ("text/html", "Transfer-Encoding: chunked\r\n", "utf-8", "chunks"),
    ],
)
def test_archived_pages_are_decoded_as_their_headers_say(kind, more, encoding, pack, tmp_path):
    import gzip

    words = "café" if encoding == "latin-1" else "Привет"
    body = html("One", f"<p>{words} stands in a paragraph that is long enough to be kept.</p>").encode(encoding)
    if pack == "gzip":
        body = gzip.compress(body)
    elif pack == "chunks":
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    (tmp_path / "a.warc").write_bytes(warc([record("https://a.example/", kind, body, more=more)], compress=False))
    (found,) = sift(config("webpages", tmp_path / "a.warc", need_both=False, fetch=False), tmp_path).records
    assert words in found.piece().text
