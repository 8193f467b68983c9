"""Limits of references in rows, pages and archives: files of their own source and public addresses only."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lorgnette.data.prepare.folder import files_of
from lorgnette.data.sources import webpages
from lorgnette.data.sources.reading.download import THREADS, in_order
from lorgnette.data.sources.reading.shards import list_files, read_bytes
from lorgnette.data.sources.web import pages
from lorgnette.errors import DataError, is_fault
from lorgnette.inputs import image_io
from tests.data.sources.made import html, lines, parquet, picture, record, warc
from tests.data.sources.sift import Sifted, config, sift

A = picture(seed=1)
TEXT = "<p>and a text about what is to be seen on it, so that it has something to say</p>"


class Answers(http.server.BaseHTTPRequestHandler):
    """A picture, a redirect to it, and a text."""

    asked: list[str] = []

    def do_GET(self) -> None:
        Answers.asked.append(self.path)
        self.send_response(302 if self.path == "/to" else 200)
        self.send_header("Location", "/a.png")
        self.end_headers()
        self.wfile.write(A if self.path == "/a.png" else b"TOKEN=secret")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    Answers.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port
        running.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of a source, with an image in it, images outside of it, and a secret."""
    made = tmp_path / "source"
    (made / "images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place in (made / "images" / "a.png", tmp_path / "outside.png", tmp_path / "elsewhere" / "b.png"):
        place.write_bytes(A)
    (tmp_path / "secret.png").write_text("TOKEN=secret")
    os.symlink(tmp_path / "secret.png", made / "link.png")
    os.symlink(tmp_path / "outside.png", made / "link2.png")
    os.mkfifo(made / "fifo.png")
    return made


def chat(source: Path, *links: str, key: str = "image_url", **settings: Any) -> Sifted:
    """Conversations with an image behind each link, as they are prepared."""
    rows = []
    for link in links:
        part = {"type": "image_url", "image_url": {"url": link}} if key == "image_url" else {"type": "image", key: link}
        asked = {"role": "user", "content": [part, {"type": "text", "text": "q"}]}
        rows.append({"messages": [asked, {"role": "assistant", "content": "a"}]})
    return sift(config("chat", lines(source / "rows.jsonl", rows), **settings), source.parent)


FILES = [
    *("/proc/self/environ", "/etc/hostname", "../secret.png", "../outside.png", "link.png", "link2.png", "fifo.png"),
    *("images/../../outside.png", "file:///etc/hostname", "local:///etc/hostname", "filecache::file:///etc/hostname"),
    *("simplecache::file:///etc/hostname", "FILE:///etc/hostname", "s3://bucket/key", "gcs://b/k", "hf://datasets/a/b"),
    *("github://a:b@/c", "sftp://127.0.0.1/etc/hostname", "memory://a", "ftp://127.0.0.1/a", "a\x00b", "x" * 400),
]


@pytest.mark.parametrize("key", ["image_url", "image", "path"])
def test_no_row_reads_a_file_that_is_not_the_sources(source: Path, key: str):
    found = chat(source, *FILES, "images/a.png", str(source / "images" / "a.png"), key=key)
    assert found.refused == {"no image": len(FILES)}
    assert [image.source for one in found.records for _, image in one.images] == [A, A]
    assert b"TOKEN" not in (source.parent / "converted.parquet").read_bytes()
    assert all(len(one) < 600 for one in found.details)


def test_settings_open_the_door_for_a_trusted_source(source: Path):
    outside, linked = str(source.parent / "outside.png"), source.parent / "elsewhere"
    found = chat(source, "../outside.png", outside, "link2.png", "../secret.png", allow_outside=True)
    assert len(found.records) == 3 and found.refused == {"unreadable image": 1}
    found = chat(source, "b.png", "images/a.png", str(linked / "b.png"), image_folder=str(linked))
    assert len(found.records) == 3
    there = f"file://{source / 'images' / 'a.png'}"
    assert len(chat(source, there, allow_schemes=["file"]).records) == 1
    assert chat(source, f"file://{outside}", allow_schemes=["file"]).refused == {"no image": 1}


@pytest.mark.parametrize(
    "wrong",
    [{"allow_hosts": ["http://a"]}, {"allow_hosts": ["*"]}, {"allow_schemes": ["s3://"]}, {"allow_schemes": ["http"]}],
)
def test_settings_of_the_door_are_checked(wrong: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match="is no"):
        config("chat", tmp_path, **wrong)


@pytest.mark.parametrize("kind", ["interleaved", "instruct", "pairs", "documents", "chat"])
def test_rows_of_parquet_that_are_read_in_place_obey_too(kind: str, source: Path):
    rows: list[dict[str, Any]] = []
    for link in ("../outside.png", "images/a.png", str(source.parent / "outside.png"), "link2.png"):
        image = {"bytes": None, "path": link}
        rows.append(
            {
                "interleaved": {"images": [image, None], "texts": [None, "a text"]},
                "instruct": {"images": [image], "texts": [{"user": "q", "assistant": "a"}]},
                "pairs": {"image": image, "alt": "a tile"},
                "documents": {"image": image, "text": "what is written upon the page"},
                "chat": {
                    "images": [image],
                    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                },
            }[kind]
        )
    path = parquet(source / "rows.parquet", rows)
    found = sift(config(kind, path, **({"merge": False} if kind == "instruct" else {})), source.parent)
    assert not found.converted and len(found.records) == 1 and found.refused == {"no image": 3}
    assert found.records[0].images[0][1].source == source / "images" / "a.png"


def test_the_hubs_cache_is_one_source(tmp_path: Path):
    """There the files of a revision are links to blobs beside it."""
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "blobs").mkdir()
    (tmp_path / "datasets--a--b" / "blobs" / "1").write_bytes(A)
    (tmp_path / "datasets--a--b" / "blobs" / "2").write_text("a tile")
    os.symlink("../../blobs/1", snapshot / "a.png")
    os.symlink("../../blobs/2", snapshot / "a.txt")
    assert len(sift(config("pairs", snapshot), tmp_path).records) == 1
    assert len(chat(snapshot, "a.png").records) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
def test_no_row_is_fetched_from_this_machine(host: str, source: Path, server: int):
    links = [f"http://{host}:{server}/{name}" for name in ("a.png", "to", "text")]
    assert chat(source, *links).refused == {"not fetched": 3} and not Answers.asked
    found = chat(source, *links, allow_hosts=[host])
    assert len(found.records) == 2 and found.refused == {"unreadable image": 1}
    assert b"TOKEN" not in (source.parent / "converted.parquet").read_bytes()


def test_links_within_conversations_of_parquet_are_fetched_when_prepared(source: Path, server: int):
    part = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{server}/a.png"}, "text": None}
    asked = {"role": "user", "content": [part, {"type": "text", "image_url": None, "text": "q"}]}
    answered = {"role": "assistant", "content": [{"type": "text", "image_url": None, "text": "a"}]}
    path = parquet(source / "rows.parquet", [{"conversations": [asked, answered]}])
    found = sift(config("chat", path, allow_hosts=["127.0.0.1"]), source.parent)
    assert found.converted and found.records[0].images[0][1].source == A


# Pages


def page(source: Path, *links: str, base: str = "", **settings: Any) -> Sifted:
    shown = "".join(f'<img src="{link}">' for link in links)
    (source / "deep").mkdir(exist_ok=True)
    (source / "deep" / "a.html").write_text(html("One", base, shown, TEXT))
    found = config(
        "webpages", source, most_images_in_a_row=None, drop_lone_last_image=False, need_both=False, **settings
    )
    return sift(found, source.parent)


def test_a_page_shows_no_file_that_is_not_the_sources(source: Path):
    links = [
        *("../../outside.png", "%2e%2e/%2e%2e/outside.png", "/../outside.png", "../link2.png", "../fifo.png"),
        *("../../../../../../../../dev/zero", "/dev/zero", "file:///etc/hostname", "//[x", "http://[", "\x00", ".."),
        *("/" + "x" * 300, "?", "#", "../../../../../../../../proc/self/environ"),
    ]
    found = page(source, *links)
    assert found.rows == 1 and not found.records[0].images
    found = page(source, "../images/a.png")
    assert len(found.records[0].images) == 1
    assert len(page(source, "/images/a.png").records[0].images) == 1
    assert len(page(source, "../../outside.png", allow_outside=True).records[0].images) == 1


def test_no_page_is_fetched_from_this_machine(source: Path, server: int):
    for link, base in [("http://127.0.0.1:{}/a.png", ""), ("a.png", "<base href=http://127.0.0.1:{}/>")]:
        found = page(source, link.format(server), base=base.format(server))
        assert found.left_out == {"not fetched": 1} and not Answers.asked
    assert len(page(source, f"http://127.0.0.1:{server}/a.png", allow_hosts=["127.0.0.1"]).records[0].images) == 1


def archive(*records: bytes) -> bytes:
    said = html("Other", "<img src=i.png>", TEXT).encode()
    return warc([*records, record("https://a.example/p", "text/html", said)])


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "chunked"])
def test_a_record_that_unpacks_without_end_is_refused_and_the_others_go_on(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pages, "MOST_BYTES", 2**20)
    body, more = bytes(2**20 + 1), f"Content-Encoding: {encoding}\r\n"
    if encoding == "chunked":
        body, more = b"100001\r\n" + body + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"
    else:
        names = {"br": "brotli", "zstd": "zstd", "gzip": "gzip"}
        body = pa.Codec(names[encoding]).compress(body, asbytes=True)
    bombs = [
        record(f"https://a.example/{n}", kind, body, more=more)
        for n, kind in (("b", "text/html"), ("i.png", "image/png"))
    ]
    (tmp_path / "a.warc.gz").write_bytes(archive(*bombs))
    found = sift(config("webpages", tmp_path / "a.warc.gz", fetch=False, need_both=False), tmp_path)
    assert found.refused == {"large page": 1} and len(found.records) == 1
    assert found.left_out == {"no image": 1}


def test_a_record_packed_otherwise_than_it_says_costs_no_others(tmp_path: Path):
    for encoding in ("gzip", "br", "zstd"):
        wrong = record("https://a.example/b", "text/html", b"<p>plain", more=f"Content-Encoding: {encoding}\r\n")
        (tmp_path / "a.warc.gz").write_bytes(archive(wrong))
        found = sift(config("webpages", tmp_path / "a.warc.gz", fetch=False, need_both=False), tmp_path)
        assert found.rows == 2 and any("Other" in one.piece().text for one in found.records), encoding


def test_pages_of_an_archive_may_have_any_address(tmp_path: Path):
    said = html("One", TEXT).encode()
    strange = [record(one, "text/html", said) for one in ("http://[", "http://a" * 500, "", "x:y")]
    (tmp_path / "a.warc.gz").write_bytes(archive(*strange))
    found = sift(config("webpages", tmp_path / "a.warc.gz", fetch=False, need_both=False), tmp_path)
    assert found.rows >= 1 and any("Other" in one.piece().text for one in found.records)


@pytest.mark.parametrize(
    ("name", "markup"),
    [
        ("depth", "<div>" * 20_000),
        ("attributes", "<div " + " ".join(f"a{n}" for n in range(30_000)) + ">"),
        ("quoted", '<div x=a"b ' + "".join(f'a{n}=">"' for n in range(30_000)) + ">"),
        ("tags", "<br>" * 120_000),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_markup_beyond_limits_is_not_parsed(name: str, markup: str, encoding: str, tmp_path: Path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{name}.html").write_bytes((html("One", TEXT) + markup).encode(encoding))
    (tmp_path / "site" / "z.html").write_text(html("Two", TEXT))
    found = sift(config("webpages", tmp_path / "site", need_both=False), tmp_path)
    assert found.refused == {"large page": 1} and len(found.records) == 1


@pytest.mark.parametrize(
    "opened", ["<div class=nav>", "<aside>", "<table><tr><td>a<td>", "<ol><li>", "<article><aside>"]
)
def test_elements_nested_by_the_thousand_are_read_in_linear_time(opened: str):
    from lorgnette.data.sources.web.markup import read_markup

    assert read_markup(opened * 2_000 + f"<h1>x</h1>{TEXT}").blocks


def test_images_of_a_page_have_a_budget(source: Path, monkeypatch: pytest.MonkeyPatch):
    for n in range(4):
        (source / "images" / f"{n}.png").write_bytes(picture(seed=10 + n))
    monkeypatch.setattr(webpages, "MOST_HELD", len(picture(seed=10)) + 10)
    found = page(source, *(f"../images/{n}.png" for n in range(4)))
    assert len(found.records[0].images) == 2 and found.left_out == {"large page": 2}


def test_threads_that_decode_wait_for_each_other(source: Path, monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    one = 160 * 160 * image_io.BYTES_PER_PIXEL
    monkeypatch.setattr(image_io.BUDGET, "total", one)
    real = image_io.upright_rgb

    def watched(image: Any) -> Any:
        held.append(image_io.BUDGET._held)
        return real(image)

    monkeypatch.setattr(image_io, "upright_rgb", watched)
    (source / "deep").mkdir()
    for n in range(8):
        (source / "images" / f"{n}.png").write_bytes(picture(seed=20 + n))
        (source / "deep" / f"{n}.html").write_text(
            html(f"Page {n}", f"<img src=../images/{n}.png>", TEXT.replace("see", str(n)))
        )
    assert len(sift(config("webpages", source), source.parent).records) == 8
    assert held and set(held) == {one}


def test_results_that_wait_are_bounded_by_their_bytes():
    begun: list[int] = []

    def work(number: int) -> bytes:
        begun.append(number)
        return bytes(200 * 2**20)

    assert next(in_order(work, range(100), threads=1)) and len(begun) < 2 * THREADS / 8


# Listings


def test_a_listing_ends_whatever_links_there_are(tmp_path: Path):
    made = tmp_path / "source"
    (made / "inner").mkdir(parents=True)
    for name in ("a", "b"):
        os.symlink(".", made / name)
        os.symlink("..", made / "inner" / name)
    os.symlink("/etc", made / "etc")
    os.symlink("/nowhere", made / "gone.txt")
    os.symlink("me.txt", made / "me.txt")
    os.symlink("/etc/hostname", made / "host.txt")
    os.symlink("inner/x.txt", made / "x2.txt")
    os.mkfifo(made / "fifo.txt")
    (made / "inner" / "x.txt").write_text("x")
    (made / os.fsdecode(b"bad\xff.txt")).write_text("y")
    found = {os.path.relpath(name, made) for name in list_files(str(made), (".txt",))}
    assert found == {"inner/x.txt", "x2.txt", os.fsdecode(b"bad\xff.txt")}
    assert {os.path.relpath(name, made) for name in list_files(f"{made}/**/*.txt", ())} == found
    assert list_files(f"{made}/**", ()) and list_files(f"{made}/**/x.txt", ()) == (f"{made}/inner/x.txt",)
    assert list_files(f"{made}/host.*", ()) == (f"{made}/host.txt",), "a glob is the user's own word"
    assert {one.name for one in files_of(config("chat", made))} == found
    with pytest.raises(DataError, match="regular file"):
        read_bytes(str(made / "fifo.txt"))


@pytest.mark.parametrize(
    "pattern", ["*.txt", "**/*.txt", "**", "a/**/c.txt", "**/b/*", "*/b/**", "**/**/c.txt", "[ab]/*"]
)
def test_globs_match_as_pythons_do(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import glob

    monkeypatch.chdir(tmp_path)
    for name in ("x.txt", "a/c.txt", "a/b/c.txt", "a/b/d/c.txt", "b/.hid/c.txt", ".h/c.txt", "a/.c.txt", "b/b/e.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for top in ("", f"{tmp_path}/"):
        expected = {name for name in glob.glob(top + pattern, recursive=True) if os.path.isfile(name)}
        assert set(list_files(top + pattern, ())) == expected


def test_panics_of_extensions_are_faults_of_the_input():
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    assert is_fault(panic("x")) and is_fault(OSError())
    assert not any(is_fault(one) for one in (KeyboardInterrupt(), SystemExit(), GeneratorExit()))
