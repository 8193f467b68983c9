"""Rows in files of every form: compressed, Arrow, WebDataset, what `datasets` saves; and in every Arrow type."""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.rejected import RejectedRow
from lorgnette.data.sources.reading import compressed
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.nested import any_starts
from lorgnette.data.sources.reading.row_files import rows_of
from lorgnette.errors import DataError
from tests.data.sources.made import lines, parquet, picture
from tests.data.sources.sift import config, sift

A, B = picture(seed=1), picture(seed=2)
TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


@pytest.mark.parametrize("form", ["jsonl", "json"])
@pytest.mark.parametrize("packed", PACK)
def test_compressed_rows_are_read_named_and_in_a_folder(packed, form, tmp_path):
    rows = [{"messages": TALK}, {"messages": TALK, "n": 2}]
    content = json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"rows.{form}.{packed}"
    path.write_bytes(PACK[packed](content.encode()))
    for place in (path, tmp_path):
        assert [one.piece().text for one in sift(config("chat", place), tmp_path / "..").records] == ["qa", "qa"]
    for cut in range(0, len(path.read_bytes()), 7):
        path.with_name(f"cut.{form}.{packed}").write_bytes(path.read_bytes()[:cut])
        found = list(rows_of(str(path.with_name(f"cut.{form}.{packed}"))))
        assert all(isinstance(row, dict | RejectedRow) for _, row in found)


@pytest.mark.parametrize("packed", ["gz", "bz2", "xz", "zst"])
def test_what_expands_too_far_is_refused_by_name(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "FREE_BYTES", 10_000)
    monkeypatch.setattr(compressed, "MOST_RATIO", 2)
    path = tmp_path / f"bomb.jsonl.{packed}"
    path.write_bytes(PACK[packed](b'{"messages": []}\n' + b" " * 5_000_000))
    refused = [row for _, row in rows_of(str(path)) if isinstance(row, RejectedRow)]
    assert [one.reason for one in refused] == ["unreadable file"]
    assert "bomb.jsonl" in refused[0].detail and "expands to more than" in refused[0].detail


@pytest.mark.parametrize("packed", PACK)
def test_a_damaged_file_keeps_no_memory(packed, tmp_path):
    path = tmp_path / f"rows.jsonl.{packed}"
    content = bytearray(PACK[packed](b"\n".join(b'{"n": %d}' % n for n in range(20_000))))
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        for round_ in range(12):
            assert any(isinstance(row, RejectedRow) for _, row in rows_of(str(path)))
            if round_ == 1:
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 2**20
    finally:
        tracemalloc.stop()


def test_a_dictionary_of_xz_that_exhausts_memory_is_refused_by_name(tmp_path):
    row, path = (json.dumps({"messages": TALK}) + "\n").encode(), tmp_path / "rows.jsonl.xz"
    path.write_bytes(lzma.compress(row, preset=9 | lzma.PRESET_EXTREME))
    assert [type(found) for _, found in rows_of(str(path))] == [dict]
    path.write_bytes(lzma.compress(row, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 128 * 2**20}]))
    ((_, refused),) = rows_of(str(path))
    assert refused.reason == "unreadable file" and "rows.jsonl.xz" in refused.detail


def test_a_row_that_is_damaged_leaves_the_others_of_its_list(tmp_path):
    good = json.dumps({"messages": TALK})
    bad = [f'{{"a": {"9" * 5000}}}', "[" * 3000 + "]" * 3000, '{"a": tru}', "3"]
    path = tmp_path / "rows.json"
    path.write_text("[" + ",\n ".join([good, *bad, good]) + "]")
    found = list(rows_of(str(path)))
    assert [place for place, _ in found] == [f"row {number}" for number in range(1, 7)]
    reasons = [row.reason if isinstance(row, RejectedRow) else "" for _, row in found]
    assert reasons == ["", "not JSON", "not JSON", "not JSON", "wrong type", ""]
    path.write_text("[" + good + ", " + good[:-4])
    cut = [row.reason if isinstance(row, RejectedRow) else "" for _, row in rows_of(str(path))]
    assert cut == ["", "not JSON", "not JSON"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["chat", "instruct", "interleaved", "pairs"])
def test_what_datasets_saves_is_read(kind, stream, tmp_path):
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    held = {"bytes": A, "path": "a.png"}
    row: dict[str, Any] = {
        "chat": {"images": [held], "messages": TALK},
        "instruct": {"images": [held], "texts": [{"user": "q", "assistant": "a"}]},
        "interleaved": {"images": [held, None], "texts": [None, "a"]},
        "pairs": {"image": held, "caption": "a"},
    }[kind]
    table = pa.Table.from_pylist([row, row])
    opener = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opener(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    (folder.parent / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (folder / "cache-12ab.arrow").write_bytes(b"not looked at")
    found = sift(config(kind, tmp_path / "saved", **({"merge": False} if kind == "instruct" else {})), tmp_path)
    assert not found.refused, found.details
    assert [len(one.images) for one in found.records] == [1, 1]


def test_damaged_arrow_ends_in_refusals(tmp_path):
    table = pa.Table.from_pylist([{"images": [{"bytes": A, "path": "x"}], "messages": TALK}] * 3)
    for opener in (pa.ipc.new_stream, pa.ipc.new_file):
        sink = io.BytesIO()
        with opener(sink, table.schema) as writer:
            writer.write_table(table)
        content, path = sink.getvalue(), tmp_path / "a.arrow"
        for place in range(0, len(content), 53):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
            assert all(isinstance(row, dict | RejectedRow) for _, row in rows_of(str(path)))


def tar(path: Path, **members: bytes) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_webdataset_archives_are_read(name, tmp_path):
    caption = json.dumps({"caption": "from json"}).encode()
    path = tar(
        tmp_path / name, d__1_jpg=A, d__1_txt=b"one", d__2_png=B, d__2_json=caption, d__3_jpg=A, d__4_txt=b"lone"
    )
    found = sift(config("pairs", path), tmp_path)
    assert [one.piece().text for one in found.records] == ["one", "from json"], found.details
    assert [one.images[0][1].source for one in found.records] == [A, B]
    assert found.refused == Counter({"no caption": 1, "no image": 1})
    talk = json.dumps(
        {"image": "d/1.jpg", "conversations": [{"from": "human", "value": "<image>q"}, {"from": "gpt", "value": "a"}]}
    )
    path = tar(
        tmp_path / f"talk-{name}",
        d__1_jpg=A,
        d__1_json=talk.encode(),
        d__2_0_jpg=A,
        d__2_1_jpg=B,
        d__2_json=json.dumps(TALK).encode(),
    )
    found = sift(config("chat", path), tmp_path)
    assert [(one.piece().text, len(one.images)) for one in found.records] == [("qa", 1), ("qa", 2)], found.details


def test_a_folder_of_images_with_a_table_of_texts_needs_no_setting(tmp_path):
    (tmp_path / "a.png").write_bytes(A)
    lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "a tile"}])
    assert [one.piece().text for one in sift(config("pairs", tmp_path), tmp_path / "..").records] == ["a tile"]


LINK = "http://a.example/x.png"
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def struct_of(path: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([pa.array([None] * len(path), pa.binary()), path], names=["bytes", "path"])


def listed(values: pa.Array, make: Callable[[pa.Array], pa.Array]) -> pa.Array:
    return make(values)


TEXTS: dict[str, Callable[[str], pa.Array]] = {
    "string": lambda text: pa.array([text]),
    "large_string": lambda text: pa.array([text], pa.large_string()),
    "string_view": lambda text: pa.array([text], pa.string_view()),
    "dictionary": lambda text: pa.array([text]).dictionary_encode(),
    "large dictionary": lambda text: pa.array([text], pa.large_string()).dictionary_encode(),
}
LISTS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "alone": lambda array: array,
    "list": lambda array: pa.ListArray.from_arrays([0, 1], array),
    "large_list": lambda array: pa.LargeListArray.from_arrays([0, 1], array),
    "fixed_size_list": lambda array: pa.FixedSizeListArray.from_arrays(array, 1),
    "list_view": lambda array: pa.ListViewArray.from_arrays([0], [1], array),
    "large_list_view": lambda array: pa.LargeListViewArray.from_arrays([0], [1], array),
}


@pytest.mark.parametrize("inner", [False, True], ids=["name", "struct"])
@pytest.mark.parametrize("outer", LISTS)
@pytest.mark.parametrize("text", TEXTS)
def test_names_and_links_are_found_in_every_arrow_type(text, outer, inner, tmp_path):
    (tmp_path / "a.png").write_bytes(A)
    for name in ("a.png", LINK):
        image = TEXTS[text](name)
        column = LISTS[outer](struct_of(image) if inner else image)
        table = pa.table({"images": column, "messages": pa.array([TALK])})
        pq.write_table(table, tmp_path / "x.parquet")
        assert holds_links(str(tmp_path / "x.parquet"), ("images",)) == (name == LINK)
        if name != LINK:
            (record,) = sift(config("chat", tmp_path / "x.parquet"), tmp_path).records
            assert len(record.images) == 1


ODD = {
    "null": pa.nulls(1),
    "numbers": pa.array([1]),
    "decimal": pa.array([1], pa.decimal128(5, 2)),
    "timestamp": pa.array([1], pa.timestamp("ns")),
    "binary": pa.array([b"http"], pa.binary_view()),
    "fixed binary": pa.array([b"http"], pa.binary(4)),
    "uuid": pa.array([b"0123456789abcdef"], pa.uuid()),
    "json": pa.array(['{"url": "x"}'], pa.json_()),
    "map": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["chat", "instruct", "pairs", "interleaved"])
def test_columns_of_any_type_end_in_records_or_refusals(kind, name, tmp_path):
    columns = {"messages": pa.array([TALK]), "texts": ODD[name], "caption": pa.array(["a"])}
    pq.write_table(
        pa.table({**columns, "image": ODD[name], "images": ODD[name], "extra": ODD[name]}), tmp_path / "x.parquet"
    )
    assert _sifted(kind, tmp_path / "x.parquet") == 1


def _sifted(kind: str, path: Path) -> int:
    try:
        return sift(config(kind, path), path.parent).rows
    except DataError as error:
        assert str(path) in str(error)
        return 1


def test_links_are_found_in_runs_maps_and_extensions():
    ends, run = pa.array([2], pa.int32()), pa.array([LINK])
    assert any_starts(pa.table({"x": pa.RunEndEncodedArray.from_arrays(ends, run)}), "http")
    assert any_starts(pa.table({"x": pa.array([[("k", LINK)]], pa.map_(pa.string(), pa.string()))}), "HTTP")
    assert any_starts(pa.table({"x": pa.array([f"{LINK}"], pa.json_())}), "http")
    assert not any_starts(pa.table(ODD), "https")


def test_messages_whose_fields_are_maps_are_read(tmp_path):
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    talk = [[list(message.items()) for message in TALK]]
    pq.write_table(pa.table({"messages": pa.array(talk, kind)}), tmp_path / "x.parquet")
    assert [one.piece().text for one in sift(config("chat", tmp_path / "x.parquet"), tmp_path).records] == ["qa"]


def test_columns_of_images_that_are_not_read_are_said(tmp_path):
    rows = [{"messages": TALK, "imgs": ["a.png"], "picture": "b.jpg?x=1", "note": "see a.png", "n": 1}] * 3
    found = sift(config("chat", lines(tmp_path / "rows.jsonl", rows)), tmp_path)
    assert len(found.records) == 3 and found.left_out == Counter({"column not read": 2})
    assert any(
        "'imgs' holds images in 3 rows or files, which kind chat does not look at" in one for one in found.details
    )


def test_columns_of_images_in_parquet_that_are_not_read_are_known(tmp_path):
    from lorgnette.data.sources.reading.unread import unread_columns

    held = {"bytes": A, "path": None}
    rows = [
        {"images": [held], "texts": [], "crops": [held], "thumb": A, "img": "a.png", "words": "png", "image_id": "7"}
    ]
    path = str(parquet(tmp_path / "a.parquet", rows))
    assert set(unread_columns(path, ("images", "texts"))) == {"crops", "thumb", "img"}
    assert unread_columns(path, ("images", "texts", "crops", "thumb", "img")) == []
