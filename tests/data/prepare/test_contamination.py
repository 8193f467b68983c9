"""Decontamination: pictures of benchmarks, equal or slightly changed, and images of opt-out lists are left out."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.config import ChatConfig, InstructConfig, InterleavedConfig, PairsConfig
from lorgnette.data.prepare import NotPrepared, open_prepared, prepare
from lorgnette.data.prepare.contamination.matches import hash_benchmark
from lorgnette.data.prepare.contamination.near_hashes import near_pairs
from lorgnette.data.prepare.image_facts import image_facts
from lorgnette.data.rejected import read_rejected
from lorgnette.data.sources.reading import schemas
from lorgnette.errors import DataError, ImageError
from tests.data.prepare.conftest import image, instruct_row, picture, write_parquet
from tests.pages import Page

BIG = (320, 240)


def changed(how: str, seed: int) -> bytes:
    """A picture after what happens to pictures on the web."""
    original = PIL.Image.open(io.BytesIO(picture(seed, BIG))).convert("RGB")
    sink = io.BytesIO()
    if how == "compressed":
        original.save(sink, "JPEG", quality=30)
    elif how == "half as large":
        original.resize((160, 120)).save(sink, "PNG")
    elif how == "grey":
        original.convert("L").save(sink, "PNG")
    elif how == "darker":
        original.point(lambda value: int(value * 0.7) + 10).save(sink, "JPEG", quality=85)
    elif how == "turned by EXIF":
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        original.transpose(PIL.Image.Transpose.ROTATE_90).save(sink, "JPEG", quality=90, exif=exif)
    return sink.getvalue()


CHANGES = ("compressed", "half as large", "grey", "darker", "turned by EXIF")


def rows_about(*pictures: bytes) -> list[dict]:
    return [{**instruct_row(n), "images": [{"bytes": one, "path": None}]} for n, one in enumerate(pictures)]


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for seed in range(20):
        (folder / f"{seed:02d}.png").write_bytes(picture(seed, BIG))
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_pictures_of_a_benchmark_are_found_whatever_happened_to_them(tmp_path, benchmark, processor):
    same = [picture(19, BIG)]
    near = [changed(how, seed) for seed, how in enumerate(CHANGES)]
    other = [picture(seed, BIG) for seed in range(100, 140)]
    write_parquet(tmp_path / "source" / "0.parquet", rows_about(*same, *near, *other), schemas.INSTRUCT)
    config = InstructConfig(path=str(tmp_path / "source"), decontaminate=(str(benchmark),))
    prepared = prepare(config, processor, workers=1)
    assert len(prepared) == len(other) and prepared.facts["reasons"] == {"in a benchmark": 1 + len(near)}
    report = json.loads((prepared.folder / "contamination.json").read_text())
    assert [one["match"] for one in report["matches"]] == ["same file"] + ["looks the same"] * len(near)
    assert [one["picture"][-6:] for one in report["matches"]] == ["19.png", *(f"{n:02d}.png" for n in range(len(near)))]
    assert report["benchmarks"] == [
        {"name": str(benchmark), "pictures": 20, "unreadable": [str(benchmark / "broken.png")], "matches": 6}
    ]
    page = Page((prepared.folder / "contamination.html").read_text())
    assert "6 records were refused" in page.text
    assert len(page.links) == 12 and all(link.startswith("data:image/jpeg;base64,") for link in page.links)


def test_a_benchmark_may_be_a_table_and_a_name_of_your_own(tmp_path, processor):
    write_parquet(tmp_path / "test.parquet", rows_about(picture(1, BIG)), schemas.INSTRUCT)
    write_parquet(tmp_path / "source" / "0.parquet", rows_about(*(picture(n, BIG) for n in range(4))), schemas.INSTRUCT)
    config = InstructConfig(path=str(tmp_path / "source"), decontaminate=(str(tmp_path / "test.parquet"),))
    assert len(prepare(config, processor, workers=1)) == 3
    assert hash_benchmark("mine", lambda name: [(name, picture(2, BIG))]).labels == ("mine",)


def test_blank_pages_are_not_taken_for_one_another(tmp_path, benchmark, processor):
    sink = io.BytesIO()
    PIL.Image.new("RGB", BIG, "white").save(sink, "PNG")
    (benchmark / "blank.png").write_bytes(sink.getvalue())
    grey = io.BytesIO()
    PIL.Image.new("RGB", BIG, "#eeeeee").save(grey, "PNG")
    write_parquet(tmp_path / "source" / "0.parquet", rows_about(grey.getvalue()), schemas.INSTRUCT)
    config = InstructConfig(path=str(tmp_path / "source"), decontaminate=(str(benchmark),))
    assert len(prepare(config, processor, workers=1)) == 1


MESSAGES = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A picture."}]
BESIDE_BYTES = {
    "interleaved": (InterleavedConfig, lambda one: {"images": [one, None], "texts": [None, "A picture."]}),
    "pairs": (PairsConfig, lambda one: {"image": one, "caption": "A picture."}),
    "instruct": (InstructConfig, lambda one: {**instruct_row(0), "images": [one]}),
    "chat": (ChatConfig, lambda one: {"images": [one], "messages": MESSAGES}),
}
"""Kind -> settings, and a row about an image: with a link beside its bytes every one of them is converted."""


@pytest.mark.parametrize("kind", BESIDE_BYTES)
def test_a_link_beside_the_bytes_is_obeyed_after_conversion(tmp_path, processor, kind):
    settings, row = BESIDE_BYTES[kind]
    images = [{"bytes": picture(n), "path": f"https://a.org/{n}.png"} for n in range(3)]
    (tmp_path / "source").mkdir()
    pq.write_table(pa.Table.from_pylist([row(one) for one in images]), tmp_path / "source" / "0.parquet")
    (tmp_path / "out.txt").write_text("https://a.org/1.png\n")
    config = settings(path=str(tmp_path / "source"), opt_out=(str(tmp_path / "out.txt"),))
    prepared = prepare(config, processor, workers=1)
    assert len(prepared) == 2 and prepared.facts["reasons"] == {"opted out": 1}
    kept = {image.source for n in range(2) for _, image in prepared.record(n).images}
    assert kept == {picture(0), picture(2)}


def test_lists_of_urls_and_hashes_are_obeyed_without_reading_again(tmp_path, processor, monkeypatch):
    rows = [{**instruct_row(n), "url": f"https://a.org/{n}.png"} for n in range(6)]
    write_parquet(tmp_path / "source" / "0.parquet", rows, schemas.INSTRUCT.append(pa.field("url", pa.string())))
    listed = tmp_path / "out.txt"
    listed.write_text(f"# who opted out\nhttp://a.org/2.png\n\n{hashlib.sha256(picture(4)).hexdigest().upper()}\n")
    plain = InstructConfig(path=str(tmp_path / "source"))
    assert len(prepare(plain, processor, workers=1)) == 6
    monkeypatch.setattr("lorgnette.data.prepare.scan.Scanner.__call__", lambda *_: pytest.fail("read again"))
    config = plain.model_copy(update={"opt_out": (str(listed),)})
    prepared = prepare(config, processor, workers=1)
    assert prepared.index.row_E.tolist() == [0, 1, 3, 0] and prepared.facts["reasons"] == {"opted out": 2}
    places = [entry.place for entry in read_rejected(prepared.folder / "rejected.jsonl")]
    assert places == ["group 0, row 2", "group 0, row 4"]
    listed.write_text("http://a.org/1.png\n")
    with pytest.raises(NotPrepared, match="a list of those who opted out"):
        open_prepared(config, processor)
    assert len(prepare(config, processor, workers=1)) == 5
    assert len(open_prepared(plain, processor)) == 6
    listed.write_text("a.org\n")
    with pytest.raises(DataError, match=r"out\.txt, line 1: 'a\.org' is neither a URL nor a SHA-256"):
        prepare(config, processor, workers=1)


@pytest.mark.parametrize("most", range(8))
def test_hashes_that_are_near_are_all_found(most):
    draw = np.random.default_rng(most)
    known = draw.integers(0, 2**64, 300, dtype=np.uint64)
    known[7] = known[8]
    queries = draw.integers(0, 2**64, 500, dtype=np.uint64)
    for place in range(200):
        bits = draw.choice(64, place % 10, replace=False)
        queries[place] = known[place] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0)
        )
    queries[300] = queries[20]
    distances = np.bitwise_count(queries[:, None] ^ known[None, :])  # the slow way
    expected = np.nonzero(distances <= most)
    found = near_pairs(queries, known, most)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(found[0]) > 20 * most


def test_nothing_is_near_to_nothing():
    none = np.empty(0, np.uint64)
    assert [len(one) for one in near_pairs(none, np.arange(3, dtype=np.uint64), 3)] == [0, 0]
    assert [len(one) for one in near_pairs(np.arange(3, dtype=np.uint64), none, 3)] == [0, 0]
    with pytest.raises(ValueError, match="the most is 7"):
        near_pairs(none, none, 8)


def test_an_image_is_looked_at_upright_and_whole():
    look = image_facts(changed("turned by EXIF", 1), "image 0", 10**6)
    assert (look.width, look.height) == BIG
    plain = image_facts(picture(1, BIG), "image 0", 10**6)
    assert plain.sha == int(hashlib.sha256(picture(1, BIG)).hexdigest()[:16], 16)
    assert (plain.look ^ look.look).bit_count() <= 4
    for content in (changed("compressed", 1)[:-300], picture(1, BIG)[:-200], b""):
        with pytest.raises(ImageError, match="image 0"):
            image_facts(content, "image 0", 10**6)
    with pytest.raises(ImageError, match="exceeds the limit of 100 pixels"):
        image_facts(image(1)["bytes"], "image 0", 100)
