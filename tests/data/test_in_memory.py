"""Data of a program: written as rows that a source reads, the same bytes each time."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest

from lorgnette.data.in_memory import sources_of, write_in_memory
from lorgnette.data.prepare.open_rows import open_rows
from lorgnette.errors import DataError, SettingsError
from lorgnette.sample import Image, Sample, Text, Turn

RED = PIL.Image.new("RGB", (16, 12), "red")


def conversation(picture):
    asked = [{"type": "image", "image": picture}, {"type": "text", "text": "What colour?"}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "red"}]}


def test_rows_of_every_form_are_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RED.save(tmp_path / "red.png")
    sample = Sample((Turn("user"), Image(RED), Text("What colour?"), Turn("assistant"), Text("red", supervised=True)))
    encoded = (tmp_path / "red.png").read_bytes()
    array = np.zeros((12, 16, 3), np.uint8)
    forms = [RED, encoded, {"bytes": encoded, "path": None}, array, "red.png", RED.convert("CMYK")]
    data = [sample, *(conversation(form) for form in forms)]
    rows = open_rows(write_in_memory(iter(data), None, tmp_path / "run/data"))
    assert len(rows) == len(data) and not rows.refused
    for number in range(len(rows)):
        piece = rows.record(number).piece()
        assert len(piece.images) == 1 and piece.text == "What colour?red"
        assert [one.supervised for one in piece.segments if isinstance(one, Text)] == [False, True]


def test_equal_data_are_the_same_file(tmp_path):
    config = write_in_memory([conversation(RED)] * 2, None, tmp_path)
    before = (tmp_path / "rows.jsonl").stat().st_mtime_ns, (tmp_path / "rows.jsonl").read_bytes()
    assert write_in_memory([conversation(RED)] * 2, None, tmp_path) == config
    assert before == ((tmp_path / "rows.jsonl").stat().st_mtime_ns, (tmp_path / "rows.jsonl").read_bytes())
    write_in_memory([conversation(RED)], None, tmp_path)
    assert before[1] != (tmp_path / "rows.jsonl").read_bytes()
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_captions_and_unsupervised_answers(tmp_path):
    pair = Sample((Image(RED), Text("a red square", supervised=True)))
    config = write_in_memory([pair], None, tmp_path / "pairs")
    assert config.kind == "pairs" and open_rows(config).record(0).piece().text == "a red square"
    said = (Turn("assistant"), Text("b"), Turn("user"), Text("c"), Turn("assistant"), Text("d", supervised=True))
    rows = open_rows(write_in_memory([Sample((Turn("user"), Text("a"), *said))], None, tmp_path / "chat"))
    texts = [one for one in rows.record(0).piece().segments if isinstance(one, Text)]
    assert [(one.text, one.supervised) for one in texts] == [("a", False), ("b", False), ("c", False), ("d", True)]


def test_paths_are_sources_and_nonsense_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}))
    assert [one.kind for one in sources_of(path, None, tmp_path)] == ["chat"]
    assert [one.path for one in sources_of([str(path)], "instruct", tmp_path)] == [str(path)]
    for data, said in (
        ([path, path], "is given twice"),
        (3, "data is a int; give paths, or rows"),
        ({"messages": []}, "data is a dict"),
        ([{"question": "a"}], "row 1 of the data has the columns question"),
    ):
        with pytest.raises(SettingsError, match=said):
            sources_of(data, None, tmp_path)
    for data, said in (
        ([], "data holds no rows"),
        ([conversation(RED), 3], "row 2 of the data is a int"),
        ([Sample((Text("a", supervised=True),), {"name": "page"})], "row 1 of the data, page: is neither"),
    ):
        with pytest.raises(DataError, match=said):
            sources_of(data, None, tmp_path)
    assert not (tmp_path / "data/rows.jsonl").exists()
