"""The kind of data is found by looking at it, and refused with what was seen where it is not clear."""

from __future__ import annotations

import json

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.detect_kind import detect_kind, kind_of_row
from lorgnette.errors import DataError, SettingsError

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("kind", ["pairs", "interleaved", "documents", "instruct", "chat", "scenes"])
def test_parts_of_the_corpus_are_known(kind):
    assert detect_kind(f"builtin:validation/{kind}") == kind


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": TALK}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "chat"),
        ({"prompt": "a", "completion": "b", "image": "a.png"}, "chat"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chat"),
        ({"instruction": "a", "input": "", "output": "b"}, "chat"),
        ({"query": "a", "response": "b"}, "chat"),
        ({"images": ["a.png"], "texts": [{"user": "a", "assistant": "b"}]}, "instruct"),
        ({"images": [None, "a.png"], "texts": ["a", None]}, "interleaved"),
        ({"file_name": "a.png", "text": "a"}, "pairs"),
        ({"image": "a.png", "caption": "a"}, "pairs"),
        ({"image": b"a", "text": "a", "page": 1}, "documents"),
        ({"prompt": "a"}, None),
        ({"question": "a", "answer": "b"}, None),
    ],
    ids=str,
)
def test_columns_say_what_a_row_is(row, kind):
    assert kind_of_row(row) == kind


def test_files_and_folders_are_known(tmp_path):
    (tmp_path / "a.jsonl").write_text("broken\n" + json.dumps({"messages": TALK}) + "\n")
    assert detect_kind(str(tmp_path / "a.jsonl")) == "chat"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    PIL.Image.new("RGB", (8, 8)).save(pictures / "a.png")
    (pictures / "a.txt").write_text("a")
    assert detect_kind(str(pictures)) == "pairs"
    (pictures / "metadata.csv").write_text("file_name,text\na.png,a\n")
    assert detect_kind(str(pictures)) == "pairs"
    pq.write_table(
        pa.table({"images": [["a.png"]], "texts": [[{"user": "a", "assistant": "b"}]]}), tmp_path / "a.parquet"
    )
    assert detect_kind(str(tmp_path / "a.parquet")) == "instruct"
    for name, kind in (("a.pdf", "documents"), ("a.html", "webpages")):
        (tmp_path / name).write_bytes(b"")
        assert detect_kind(str(tmp_path / name)) == kind


def test_what_is_unclear_is_refused_with_what_was_seen(tmp_path):
    rows = {
        "other.jsonl": ([{"question": "a", "answer": "b"}], "the columns of .*other.jsonl are question, answer"),
        "mixed.jsonl": ([{"messages": TALK}, {"image": "a", "caption": "b"}], "of kind chat and of kind pairs"),
        "broken.jsonl": (["a"], "none of the first 16 rows"),
    }
    for name, (values, said) in rows.items():
        (tmp_path / name).write_text("\n".join(map(json.dumps, values)))
        with pytest.raises(SettingsError, match=said):
            detect_kind(str(tmp_path / name))
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"holds pages .* and rows"):
        detect_kind(str(tmp_path))
    (tmp_path / "notes.md").write_text("a")
    with pytest.raises(SettingsError, match=r"its files are 1 of \.md"):
        detect_kind(str(tmp_path / "notes.md"))
    with pytest.raises(DataError, match="no such file"):
        detect_kind(str(tmp_path / "nothing.jsonl"))
