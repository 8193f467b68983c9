"""Images behind links and URLs: fetched once when a source is prepared, or refused by name."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading import download as module
from lorgnette.data.sources.reading.boundary import Boundary, drawn
from lorgnette.data.sources.reading.download import download, in_order
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.shards import list_files, read_bytes
from lorgnette.data.sources.table import converter
from lorgnette.errors import DataError
from lorgnette.inputs.access import Access
from tests.data.sources.made import html, lines, parquet, picture
from tests.data.sources.sift import config, sift

A, B = picture(seed=1), picture(seed=2)
HERE = ["127.0.0.1"]


class Server(http.server.BaseHTTPRequestHandler):
    """Serves pictures, and faults of every kind; counts what it is asked for."""

    asked: Counter[str] = Counter()

    def do_GET(self) -> None:
        name = self.path.strip("/")
        Server.asked[name] += 1
        content = {"a.png": A, "b.png": B, "busy.png": A}.get(name, b"")
        status = 404 if name.startswith("gone") else 200
        if (name == "busy.png" and Server.asked[name] < 3) or name == "always-busy.png":
            status = 503
        if name == "slow.png":
            time.sleep(1.0)
        self.send_response(status)
        self.send_header("Content-Type", "image/png")
        if name == "endless.png":
            self.end_headers()
            for _ in range(200):
                self.wfile.write(bytes(10_000))
            return
        self.send_header("Content-Length", str(len(A) if name == "cut.png" else len(content)))
        self.end_headers()
        self.wfile.write(A[:50] if name == "cut.png" else content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    Server.asked.clear()
    for name, value in {"PAUSE": 0.01, "_SECONDS": 0.6, "_MOST_BYTES": 1_000_000}.items():
        monkeypatch.setattr(module, name, value)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    with drawn(Boundary(Access(hosts=frozenset(HERE)))):
        yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_a_busy_server_is_asked_again(server):
    assert download(f"{server}/a.png") == A
    assert download(f"{server}/busy.png") == A
    assert Server.asked == Counter({"a.png": 1, "busy.png": 3})


@pytest.mark.parametrize(
    ("name", "reason", "tries"),
    [
        ("gone.png", "404", 1),
        ("always-busy.png", "503", 3),
        ("endless.png", "exceeds 0 MiB", 1),
        ("cut.png", "", 3),
        ("slow.png", "", 1),
    ],
)
def test_what_cannot_be_fetched_is_refused_by_its_link(server, name, reason, tries):
    start = time.monotonic()
    with pytest.raises(Refused, match=f"not fetched.*{name}.*{reason}") as caught:
        download(f"{server}/{name}")
    assert caught.value.reason == "not fetched"
    assert Server.asked[name] == tries
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("link", ["http://127.0.0.1:1/a.png", "http://[::1", "http://a b", "http://", "https://\x00/"])
def test_no_server_and_no_link_at_all_are_refused(server, link):
    with pytest.raises(Refused, match="not fetched"):
        download(link)


def rows_with_links(kind: str, folder: Path, server: str) -> Path:
    """Four rows with an image behind a link each: two that lead somewhere, one that does not, and one twice."""
    links = [f"{server}/{name}.png" for name in ("a", "b", "gone", "a")]
    if kind == "interleaved":
        rows: list[dict[str, Any]] = [
            {"images": [link, None], "texts": [None, f"text {n}"]} for n, link in enumerate(links)
        ]
    elif kind == "instruct":
        rows = [{"images": [{"bytes": None, "path": link}], "texts": [{"user": f"{n}?", "assistant": "Yes."}]}
                for n, link in enumerate(links)]  # fmt: skip
    elif kind == "pairs":
        rows = [
            {"image": {"bytes": None, "path": link}, "alt": f"alt {n}", "caption": None} for n, link in enumerate(links)
        ]
    elif kind == "documents":
        rows = [
            {"image": link, "text": f"what is upon page number {n}", "name": "a", "page": n}
            for n, link in enumerate(links)
        ]
    else:
        answer = {"role": "assistant", "content": [{"type": "text", "url": None, "text": "Yes."}]}
        asked = [
            [{"type": "image", "url": link, "text": None}, {"type": "text", "url": None, "text": f"{n}?"}]
            for n, link in enumerate(links)
        ]
        rows = [{"messages": [{"role": "user", "content": one}, answer]} for one in asked]
    return parquet(folder / "rows.parquet", rows)


@pytest.mark.parametrize("kind", ["interleaved", "instruct", "pairs", "documents", "chat"])
def test_links_in_parquet_are_fetched_when_the_source_is_prepared(server, kind, tmp_path):
    """An interleaved document goes on without a lost image, if the rules allow; other rows are about it."""
    found = sift(config(kind, rows_with_links(kind, tmp_path, server), allow_hosts=HERE), tmp_path)
    assert found.converted
    sources = [image.source for record in found.records for _, image in record.images]
    assert sources == ([A, B] if kind == "instruct" else [A, B, A])
    expected = {"no image": 1} if kind == "interleaved" else {"not fetched": 1}
    assert found.refused == Counter(expected), found.details
    assert found.left_out["not fetched"] == (1 if kind == "interleaved" else 0)
    assert found.rows + found.left_out["merged"] == 4
    assert "gone.png" in " ".join(found.details) and Server.asked["gone.png"] == 1


@pytest.mark.parametrize("kind", ["interleaved", "instruct", "pairs", "documents"])
def test_rows_without_links_stay_where_they_are(kind, tmp_path):
    """Text that speaks of a link is no image behind one."""
    held = {"bytes": A, "path": "a.png"}
    rows = [{"images": [held], "texts": [None], "image": held, "alt": "http://a.example", "text": "https://b.example"}]
    if kind == "instruct":
        rows[0]["texts"] = [{"user": "http://a.example/x.png?", "assistant": "http://b.example"}]  # type: ignore[list-item]
    assert converter(config(kind, parquet(tmp_path / "a.parquet", rows))) is None


def test_links_are_found_in_a_damaged_folder(tmp_path):
    parquet(tmp_path / "b.parquet", [{"images": [{"bytes": None, "path": "HTTPS://a.example/x.png"}]}])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    assert holds_links(str(tmp_path), ("images",))
    assert not holds_links(str(tmp_path), ("image",))


def test_tables_and_chats_fetch_too(server, tmp_path):
    table = lines(tmp_path / "pairs" / "metadata.jsonl", [{"file_name": f"{server}/a.png", "alt": "x"}])
    assert sift(config("pairs", table.parent, allow_hosts=HERE), tmp_path).records[0].images[0][1].source == A
    talk = [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "Yes."}]
    rows = [{"image": f"{server}/{name}.png", "conversations": talk} for name in ("a", "gone")]
    found = sift(config("chat", lines(tmp_path / "talk.jsonl", rows), allow_hosts=HERE), tmp_path)
    assert found.records[0].images[0][1].source == A and found.refused == Counter({"not fetched": 1})


def test_web_pages_fetch_what_is_not_beside_them_unless_told_not_to(server, tmp_path):
    long = "The keeper of the light kept a diary for forty years, and in it he wrote of storms, of birds and of ships."
    shown = "".join(f"<img src={server}/{name}.png><p>{long} {name}</p>" for name in ("a", "gone"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "p.html").write_text(html("One", f"<base href={server}/x/>", shown))
    found = sift(config("webpages", tmp_path / "site", allow_hosts=HERE), tmp_path)
    assert [image.source for _, image in found.records[0].images] == [A]
    assert found.left_out == Counter({"not fetched": 1})
    Server.asked.clear()
    off = config("webpages", tmp_path / "site", fetch=False, allow_hosts=HERE)
    assert sift(off, tmp_path).left_out == Counter({"not fetched": 2})
    assert not Server.asked


def test_threads_keep_the_order_and_hold_few_items():
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    results = in_order(work, items(), threads=4)
    assert next(results) == 0 and len(taken) <= 8
    assert list(results) == list(range(1, 100))

    def fail(number: int) -> int:
        if number == 5:
            raise DataError("the fifth")
        return number

    seen = []
    with pytest.raises(DataError, match="the fifth"):
        for one in in_order(fail, range(100), threads=4):
            seen.append(one)
    assert seen == list(range(5))


def written(url: str, content: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(content)


@pytest.mark.parametrize("place", ["memory://bucket", "file://"])
@pytest.mark.parametrize("kind", ["interleaved", "instruct", "chat", "documents", "pairs", "webpages"])
def test_every_kind_is_read_from_a_url(place, kind, tmp_path):
    """The same rows from a local folder, `memory://` and `file://`, with an image by its path from the file."""
    root = f"{place}/{kind}" if place.startswith("memory") else f"file://{tmp_path}/remote"
    (tmp_path / "remote").mkdir()
    local = tmp_path / "local"
    local.mkdir()
    image = {"bytes": None, "path": "img/a.png"}
    rows: dict[str, list[dict[str, Any]]] = {
        "interleaved": [{"images": [image, None], "texts": [None, "text"]}],
        "instruct": [{"images": [image], "texts": [{"user": "?", "assistant": "Yes.", "source": "s"}]}],
        "chat": [
            {"image": "img/a.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Y"}]}
        ],
        "documents": [{"image": "img/a.png", "text": "what is written upon the page", "name": "a", "page": 1}],
        "pairs": [{"file_name": "img/a.png", "alt": "a tile"}],
    }
    name = {"chat": "a.json", "pairs": "metadata.jsonl", "webpages": "a.html"}.get(kind, "a.parquet")
    if kind == "webpages":
        (local / name).write_text(html("One", "<img src=img/a.png><p>and a text about what is to be seen on it</p>"))
    elif name.endswith("parquet"):
        parquet(local / name, rows[kind])
    else:
        (local / name).write_text("\n".join(json.dumps(row) for row in rows[kind]))
    written(f"{root}/{name}", (local / name).read_bytes())
    written(f"{root}/img/a.png", A)
    if place.startswith("file"):
        assert (tmp_path / "remote" / "img" / "a.png").read_bytes() == A
    (record,) = sift(config(kind, root), tmp_path).records
    source = record.images[0][1].source
    assert (source if isinstance(source, bytes) else Path(str(source)).read_bytes()) == A


def test_files_below_a_url_are_found_as_in_a_folder():
    for name in ("b/x.parquet", "a.PARQUET", "_hidden/x.parquet", "c/.x.parquet", "d.txt"):
        written(f"memory://found/{name}", b"x")
    assert list_files("memory://found", (".parquet",)) == ("memory:///found/a.PARQUET", "memory:///found/b/x.parquet")
    assert list_files("memory://found/*.txt", (".parquet",)) == ("memory:///found/d.txt",)
    assert read_bytes("memory://found/d.txt") == b"x"


@pytest.mark.parametrize("url", ["memory://nothing/here", "nosuch://bucket/x", "memory://found/none*.parquet"])
def test_a_url_that_leads_nowhere_is_named(url):
    with pytest.raises(DataError, match=url.split("*")[0]):
        list_files(url, (".parquet",))
    with pytest.raises(DataError):
        read_bytes(url)
