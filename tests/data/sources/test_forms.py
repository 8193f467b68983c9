"""Every form of rows that the reference page shows, and every file that may hold them: a tiny file each, read whole."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.detect_kind import detect_kind
from scripts.source_examples import EXAMPLES, Example
from tests.data.sources.sift import config, sift


def picture() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (200, 160), "red").save(buffer, "PNG")
    return buffer.getvalue()


def spoken(record: Any) -> tuple[str, str, int]:
    """All text of a record, what of it is supervised, and its images."""
    sample = record.piece()
    learned = "".join(getattr(one, "text", "") for one in sample.segments if getattr(one, "supervised", False))
    return sample.text, learned, len(sample.images)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.kind}, {one.form}")
def test_a_row_of_the_reference_page_is_read_as_its_kind(example: Example, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "red.png").write_bytes(picture())
    (folder / example.file).write_text(example.content, encoding="utf-8")
    beside = example.file in ("metadata.csv", "red.txt")
    path = folder if beside else folder / example.file
    assert detect_kind(str(path)) == example.kind
    found = sift(config(example.kind, path), tmp_path)
    assert len(found.records) == 1 and found.refused == {}
    text, learned, images = spoken(found.records[0])
    assert images == (0 if "not learned" in example.form else 1)
    assert "<image>" not in text
    if example.kind in ("chat", "instruct"):
        assert learned == "Red." and "What colour is it?" in text
    else:
        assert (learned and "red square" in learned) or "all red" in learned


TALK = [{"role": "user", "content": "What colour is it?"}, {"role": "assistant", "content": "Red."}]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table() -> pa.Table:
    """A row as `datasets` types it: an Image feature, messages as a list of structs, a column of nulls."""
    rows = [{"image": {"bytes": picture(), "path": None}, "messages": TALK, "system": None}]
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    types = [("image", IMAGE), ("messages", pa.list_(message)), ("system", pa.string())]
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def saved_to_disk(folder: Path) -> Path:
    """What `Dataset.save_to_disk` writes: an Arrow stream, and two files about it."""
    place = folder / "saved"
    place.mkdir()
    with (
        pa.OSFile(str(place / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table().schema) as out,
    ):
        out.write_table(table())
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (place / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return place


def parquet_of_datasets(folder: Path) -> Path:
    pq.write_table(table(), folder / "train-00000-of-00001.parquet")
    return folder / "train-00000-of-00001.parquet"


def lines(folder: Path) -> bytes:
    (folder / "red.png").write_bytes(picture())
    return (json.dumps({"image": "red.png", "messages": TALK}) + "\n").encode()


def gzipped(folder: Path) -> Path:
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines(folder)))
    return folder / "rows.jsonl.gz"


def zstandard(folder: Path) -> Path:
    content = lines(folder)
    with pa.OSFile(str(folder / "rows.jsonl.zst"), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return folder / "rows.jsonl.zst"


def webdataset(folder: Path) -> Path:
    with tarfile.open(folder / "rows.tar", "w") as archive:
        for name, content in (("0.png", picture()), ("0.json", json.dumps({"messages": TALK}).encode())):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return folder / "rows.tar"


FILES: tuple[Callable[[Path], Path], ...] = (saved_to_disk, parquet_of_datasets, gzipped, zstandard, webdataset)


@pytest.mark.parametrize("make", FILES, ids=lambda one: one.__name__)
def test_a_conversation_is_read_from_every_kind_of_file(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    path = make(folder)
    assert detect_kind(str(path)) == "chat"
    found = sift(config("chat", path), tmp_path)
    assert found.refused == {}
    assert [spoken(one) for one in found.records] == [("What colour is it?Red.", "Red.", 1)]


def test_images_below_a_root_of_their_own(tmp_path: Path) -> None:
    for name in ("rows", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "red.png").write_bytes(picture())
    (tmp_path / "rows" / "a.jsonl").write_text(json.dumps({"image": "red.png", "messages": TALK}) + "\n")
    found = sift(config("chat", tmp_path / "rows" / "a.jsonl", image_folder=str(tmp_path / "pictures")), tmp_path)
    assert [spoken(one)[2] for one in found.records] == [1]


def test_turns_about_tools_are_refused_with_that_reason(tmp_path: Path) -> None:
    calls = [*TALK[:1], {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": calls}) + "\n" + json.dumps({"messages": TALK}) + "\n")
    found = sift(config("chat", tmp_path / "a.jsonl"), tmp_path)
    assert len(found.records) == 1 and found.refused == {"tool calls": 1}
    assert "message 1 calls a tool" in found.details[0]
