"""Pages, archives and PDF files changed at random: each becomes rows or refusals, in bounded time, and nothing else.

`LORGNETTE_MUTATIONS` is how many pages are tried (300), and a third as many files of the other kinds; their seeds are
their numbers.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorgnette.data.record import Refused
from lorgnette.data.sources.web.markup import read_markup
from lorgnette.data.sources.web.pages import Page, Pages
from tests.data.sources.made import html, pdf, picture, record, warc
from tests.data.sources.sift import config, sift

MANY = int(os.environ.get("LORGNETTE_MUTATIONS", "300"))
SLOWEST = 30.0

SCRAPS = [
    *(b"<img src='http://['>", b"<img src='//[x'>", b"<base href='http://[x'>", b"<base href='//x'>"),
    *(
        b"\x00",
        b"\xff\xfe",
        b"<div>" * 50,
        b"</",
        b"<!--",
        b"<svg><p>",
        b"<a b='",
        b"<img src='/dev/zero'>",
        b"%2e%2e/",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Content-Length: 99999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"WARC/1.0\r\n",
    ),
    *(b"/Count 99999", b"/Kids [2 0 R]", b"/MediaBox [0 0 1e9 1e9]", b"/MediaBox [nan 0 0 -1]", b"stream\n", b"endobj"),
    *(b"/Rotate 91", b"9" * 400, b"-1", b"[[[[", b">>", b"%PDF-1.7\n", b"http://127.0.0.1:1/", b"file:///etc/hostname"),
]


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to six places changed, cut out, doubled, or filled with a scrap."""
    chance, made = random.Random(seed), bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(made) + 1)
        end = min(len(made), place + chance.choice((0, 1, 4, 40, 400)))
        kind = chance.randrange(4)
        if kind == 0:
            made[place:end] = chance.randbytes(end - place)
        elif kind == 1:
            del made[place:end]
        elif kind == 2:
            made[place:place] = made[place:end]
        else:
            made[place:end] = chance.choice(SCRAPS)
    return bytes(made)


LINES = [(60.0, 700.0, "A page with enough text to be read."), (60.0, 600.0, "And another line of it.")]
TABLE = "<table><tr><td>a<td>b</table><ul><li>b<pre> c </pre></ul>"
PAGE = html("One", "<base href='x/'><img src=a.png alt=x>", TABLE).encode()
ARCHIVED = [
    record("https://a.example/p", "text/html", PAGE),
    record("https://a.example/x/a.png", "image/png", picture()),
    record("https://a.example/q", "text/html", PAGE.replace(b"One", b"Two")),
]


def read_page(content: bytes, folder: Path) -> int:
    """A page as the converter reads it, and each of its images asked for."""
    (folder / "a.html").write_bytes(content)
    pages = Pages(str(folder), fetch=False)
    count = 0
    for page in pages.read():
        count += 1
        if isinstance(page, Page):
            markup = read_markup(page.content)
            for one in (picture for block in markup.blocks for picture in block.pictures):
                with pytest.raises(Refused):
                    pages.image(page, one.link, markup.base)
    return count


def read_archive(content: bytes, folder: Path) -> int:
    (folder / "a.warc").write_bytes(content)
    return sift(config("webpages", folder / "a.warc", need_both=False, fetch=False), folder).rows


def read_pdf(content: bytes, folder: Path) -> int:
    (folder / "a.pdf").write_bytes(content)
    return sift(config("documents", folder / "a.pdf", dpi=36), folder).rows


KINDS: dict[str, tuple[bytes, Callable[[bytes, Path], int]]] = {
    "page": (PAGE, read_page),
    "archive": (warc(ARCHIVED, compress=False), read_archive),
    "packed archive": (warc(ARCHIVED), read_archive),
    "pdf": (pdf([LINES] * 2), read_pdf),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_become_rows_or_refusals(kind: str, tmp_path: Path):
    content, read = KINDS[kind]
    slowest = 0.0
    for seed in range(MANY if kind == "page" else MANY // 3):
        start = time.monotonic()
        assert read(mutated(content, seed), tmp_path) >= 1, f"{kind}, seed {seed}: nothing is said of it"
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < SLOWEST
