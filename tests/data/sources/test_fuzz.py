"""Rows and files of any content: what comes of them is a record, or Refused, or a RejectedRow, and nothing else."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.reading.shards import Shards
from lorgnette.data.sources.table import KINDS
from lorgnette.data.sources.web.markup import read_markup
from lorgnette.errors import DataError
from tests.data.sources.made import html, pdf, picture, record, warc
from tests.data.sources.sift import config, sift

FAST = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLOW = settings(FAST, max_examples=25)

A = picture()
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=True) | st.binary(max_size=4)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", " ", "<image>", "a.png", "/\x00", "file://x", "memory://no/a", "data:,x"]
)
KEYS = st.sampled_from(
    ["bytes", "path", "user", "assistant", "source", "role", "content", "from", "value", "type", "text"]
)
ANYTHING = st.recursive(
    SCALARS
    | TEXTS
    | st.sampled_from([A, A[:60], {"bytes": A, "path": None}, {"type": "image"}, "human", "gpt", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def rows(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(KINDS[kind].columns(config(kind, "x")), ANYTHING))


@pytest.mark.parametrize("kind", KINDS)
@FAST
@given(data=st.data())
def test_any_row_is_read_or_refused(kind, data):
    made = config(kind, "x")
    with contextlib.suppress(Refused):
        found = KINDS[kind].read(data.draw(rows(kind)), made, "row 1")
        assert isinstance(found, Record) and found.units
        assert found.piece().segments


@pytest.mark.parametrize("kind", ["chat", "pairs"])
@SLOW
@given(content=st.lists(ANYTHING.filter(lambda one: not isinstance(one, bytes)), max_size=4) | TEXTS)
def test_any_json_is_converted_or_refused_row_by_row(kind, content, tmp_path):
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, list):
            return [plain(one) for one in value]
        return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value

    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(plain(content)), encoding="utf-8")
    found = sift(config(kind, path), tmp_path)
    assert found.rows == (len(content) if isinstance(content, list) else 1)


@SLOW
@given(lines=st.lists(st.sampled_from(['{"messages": []}', "{", "", "[]", "3", "null", '{"a": NaN}']), max_size=6))
def test_rows_of_a_broken_jsonl_add_up(lines, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    found = sift(config("chat", path), tmp_path)
    assert found.rows == sum(bool(line) for line in lines) and not found.records


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
@SLOW
@given(
    content=st.binary(max_size=60)
    | st.sampled_from([b"\xff\xfe", b'a,"b\n', b"file_name,alt\na.png,x\n", b"\x00,\x00"])
)
def test_any_bytes_under_a_tables_name_are_refused(suffix, content, tmp_path):
    path = tmp_path / f"metadata.{suffix}"
    path.write_bytes(content)
    found = sift(config("pairs", path), tmp_path)
    assert not found.records


WHOLE = pdf([[(60.0, 700.0, "A page with enough text to be read.")]] * 2)


@SLOW
@given(start=st.integers(0, len(WHOLE)), end=st.integers(0, len(WHOLE)), between=st.binary(max_size=6))
def test_a_damaged_pdf_gives_pages_or_refusals(start, end, between, tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(WHOLE[:start] + between + WHOLE[end:])
    found = sift(config("documents", path, dpi=36), tmp_path)
    assert found.rows >= 1
    assert all("enough text" in one.piece().text or one.piece().text for one in found.records)


PAGE = html("One", "<table><tr><td>a<td><img src=a.png alt=x></table><ul><li>b<pre> c </pre></ul>", "<p>" * 40).encode()
SCRAPS = [
    *("<", "</p>", "<li>", "<td>", "<tr>", "<table>", "<ol start=-9>", "<pre>", "<br>", "<img src>", "<a>", "</a></a>"),
    *("<img srcset=','>", "<base href='http://[x'>", "<main>", "</body>", "\x00", "&#xD800;", "<svg><p>", "<noscript>"),
]


@FAST
@given(st.lists(st.sampled_from(SCRAPS) | st.text(max_size=6), max_size=30))
def test_any_markup_is_read(scraps):
    for block in read_markup("".join(scraps)).blocks:
        assert block.parts and (block.text or block.pictures)


def test_markup_nested_beyond_all_measure_is_read():
    deep = "<div>" * 3_000 + "At the bottom there is one sentence that is long enough to be content." + "</div>" * 3_000
    assert read_markup(deep).blocks[0].text.startswith("At the bottom")


@SLOW
@given(start=st.integers(0, len(PAGE)), end=st.integers(0, len(PAGE)), between=st.binary(max_size=6))
def test_a_damaged_page_is_a_row_or_refused(start, end, between, tmp_path):
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / "a.html").write_bytes(PAGE[:start] + between + PAGE[end:])
    assert sift(config("webpages", tmp_path / "site", fetch=False), tmp_path).rows == 1


ARCHIVE = warc([record(f"https://a.example/{n}", "text/html", PAGE) for n in range(2)], compress=False)


@SLOW
@given(start=st.integers(0, len(ARCHIVE)), end=st.integers(0, len(ARCHIVE)), between=st.binary(max_size=6))
def test_a_damaged_archive_ends_in_refusals(start, end, between, tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(ARCHIVE[:start] + between + ARCHIVE[end:])
    found = sift(config("webpages", path, need_both=False, fetch=False), tmp_path)
    assert found.rows >= 1


def row_group(path: Path, kind: str) -> bytes:
    from tests.data.sources.made import parquet

    made = {
        "interleaved": {"images": [{"bytes": A, "path": None}, None], "texts": [None, "x"]},
        "instruct": {"images": [{"bytes": A, "path": None}], "texts": [{"user": "?", "assistant": "Yes."}]},
    }[kind]
    return parquet(path, [made] * 4).read_bytes()


@pytest.mark.parametrize("kind", ["interleaved", "instruct"])
@SLOW
@given(place=st.integers(0, 3000), change=st.binary(min_size=1, max_size=8))
def test_damaged_parquet_raises_nothing_but_data_errors(kind, place, change, tmp_path):
    path = tmp_path / "a.parquet"
    content = bytearray(row_group(path, kind))
    place %= len(content)
    content[place : place + len(change)] = change
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        shards = Shards((str(path),), KINDS[kind].columns(config(kind, path)))
        for group in range(len(shards.groups(0))):
            for row in shards.rows(0, group):
                with contextlib.suppress(Refused):
                    assert KINDS[kind].read(row, config(kind, path), "row").units
