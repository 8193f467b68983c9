"""Web pages: what is content, where images stand, and what is left out of them, from files, archives and servers."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from lorgnette.data.sources.web.markup import Picture, read_markup
from lorgnette.data.sources.web.repeats import RepeatCounter, key_of
from lorgnette.sample import Image, Text
from tests.data.sources.made import PARAGRAPH, html, picture, record, warc
from tests.data.sources.sift import Sifted, config, sift

LONG = "The keeper of the light kept a diary for forty years, and in it he wrote of storms, of birds and of ships."


def blocks(markup: str | bytes) -> list[str]:
    return [block.text for block in read_markup(markup).blocks if block.text]


def shown(markup: str) -> list[str | Picture]:
    return [
        part if isinstance(part, Picture) else part.strip() for one in read_markup(markup).blocks for part in one.parts
    ]


@pytest.mark.parametrize(
    "furniture",
    [
        "<nav><p>{}</p></nav>",
        "<footer>{}</footer>",
        "<aside>{}</aside>",
        "<header>{}</header>",
        "<div class='site-navigation nav'>{}</div>",
        "<div id='cookie-consent'>{}</div>",
        "<div role='navigation'>{}</div>",
        "<div hidden>{}</div>",
        "<div aria-hidden=true>{}</div>",
        "<div style='display: none'>{}</div>",
        "<script>{}</script>",
        "<style>{}</style>",
        "<template>{}</template>",
        "<noscript>{}</noscript>",
        "<button>{}</button>",
        "<!-- {} -->",
    ],
)
def test_furniture_is_not_content(furniture):
    assert (
        blocks(html("One", furniture.format(LONG), f"<p>{LONG} The end.</p>", paragraphs=3))[-1] == f"{LONG} The end."
    )
    assert LONG not in blocks(html("One", furniture.format(LONG), f"<p>{LONG} The end.</p>", paragraphs=3))


def test_menus_are_not_content_but_links_in_a_sentence_are():
    menu = "<ul>" + "".join(f"<li><a href=x>An entry of some length, number {n}</a></li>" for n in range(5)) + "</ul>"
    linked = f"<p>{LONG} <a href=y>See there</a>.</p>"
    assert blocks(html("One", menu, linked)) == ["One", f"{PARAGRAPH} So says One, page 0.", f"{LONG} See there."]


def test_main_or_a_single_article_is_the_content():
    inside = f"<h1>T</h1><p>{LONG}</p><p>{LONG} Again.</p>"
    for page in (
        f"<body><p>{PARAGRAPH}</p><main>{inside}</main><p>{PARAGRAPH}</p>",
        f"<p>{PARAGRAPH}</p><article>{inside}</article>",
    ):
        assert blocks(page) == ["T", LONG, f"{LONG} Again."]
    two = f"<article><p>{LONG}</p></article><article><p>{LONG} Again.</p></article>"
    assert blocks(two) == [LONG, f"{LONG} Again."]


def test_text_is_read_as_it_is_laid_out():
    page = f"""<p>{LONG}</p><h2>A  heading</h2><p>one<br>two <b>three</b>, f<i>our</i>&nbsp;five so&shy;ft</p>
    <ul><li>first<li>second <ol start=3><li>third</ol></ul>
    <table><tr><th>Item<th>Price<tr><td>Tea<td>2</table>
    <pre>  kept
    as it is</pre><p>{LONG} End.</p>"""
    assert blocks(page) == [
        LONG,
        "A heading",
        "one\ntwo three, four five soft",
        "- first",
        "- second",
        "3. third",
        "Item | Price",
        "Tea | 2",
        "kept\n    as it is",
        f"{LONG} End.",
    ]


def test_images_stand_in_the_text_where_the_page_has_them():
    page = f"<p>{LONG} <img src=a.png alt='An  alt'> goes on</p><figure><img src=b.png><figcaption>Two words</figure>"
    assert shown(page) == [LONG, Picture("a.png", "An alt"), "goes on", Picture("b.png"), "Two words"]


@pytest.mark.parametrize(
    ("image", "link"),
    [
        ("<img src=a.png>", "a.png"),
        ("<img src=' a.png ' srcset='b.png 2x'>", "a.png"),
        ("<img data-src=b.png src='data:image/gif;base64,R0lGODlh'>", "b.png"),
        ("<img srcset='s.png 100w, l.png 900w, m.png 400w' src='data:image/gif;base64,R0lGODlh'>", "l.png"),
        ("<noscript><img src=n.png></noscript>", "n.png"),
        ("<picture><source srcset=x.webp><img src=a.png></picture>", "a.png"),
    ],
)
def test_the_file_of_an_image_is_found_where_pages_name_it(image, link):
    assert [
        one.link for block in read_markup(f"<p>{LONG}</p>{image}<p>{LONG}</p>").blocks for one in block.pictures
    ] == [link]


@pytest.mark.parametrize(
    "content",
    [
        "<meta charset=windows-1251><p>Привет".encode("windows-1251"),
        "\ufeff<p>Привет".encode("utf-16"),
        "<p>Привет".encode(),
    ],
)
def test_bytes_are_decoded_as_the_page_says(content):
    assert blocks(content) == ["Привет"]


def pages(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def sifted(tmp_path: Path, folder: Path, **settings: object) -> Sifted:
    return sift(config("webpages", folder, **settings), tmp_path)


def test_paragraphs_and_images_on_many_pages_are_furniture(tmp_path):
    image = "<img src=own{}.png><p>The image above this paragraph belongs to page number {} and to no other page.</p>"
    logo = f"<img src=logo.png><p>{LONG}</p>"
    files = {f"p{n}__html": html(f"Page {n}", image.format(n, n), logo) for n in range(4)}
    files |= {f"own{n}__png": picture(seed=n) for n in range(4)} | {"logo__png": picture(seed=9)}
    folder = pages(tmp_path / "site", **files)
    found = sifted(tmp_path, folder, most_image_repeats=3)
    assert found.left_out == Counter({"repeated text": 4, "repeated image": 4})
    assert [len(one.images) for one in found.records] == [1] * 4
    assert not any(LONG in one.piece().text for one in found.records)
    kept = sifted(tmp_path, folder, most_repeats=4)
    assert not kept.left_out and all(LONG in one.piece().text for one in kept.records)


def test_a_short_heading_of_three_pages_among_many_is_kept(tmp_path):
    files = {
        f"p{n}__html": html(f"Page {n}", "<h2>Options</h2>" if n < 3 else "", f"<p>{LONG} {n}</p>") for n in range(40)
    }
    found = sifted(tmp_path, pages(tmp_path / "site", **files), need_both=False)
    assert sum("Options" in one.piece().text for one in found.records) == 3


def test_images_are_looked_at_before_they_are_kept(tmp_path):
    names = ["a", "a", "copy", "small", "long", "broken", "text", "gone"]
    files = {
        "a__png": picture(200, 200),
        "copy__png": picture(200, 200),
        "small__png": picture(149, 200),
        "long__png": picture(150, 301),
        "broken__png": picture()[:80],
        "text__png": b"<svg/>",
        "p__html": html(
            "One", *(f"<p>{LONG} {n}</p><img src={one}.png>" for n, one in enumerate(names)), f"<p>{LONG}</p>"
        ),
    }
    found = sifted(tmp_path, pages(tmp_path / "site", **files))
    assert found.left_out == Counter(
        {"duplicate image": 2, "small image": 1, "long image": 1, "unreadable image": 2, "no image": 1}
    )
    assert [len(one.images) for one in found.records] == [1]
    loose = sifted(tmp_path, tmp_path / "site", smallest_side=100, most_aspect=3)
    assert [len(one.images) for one in loose.records] == [3]


def test_text_around_an_image_that_is_left_out_is_one_sentence(tmp_path):
    page = html("One", "<p>Click the icon <img src=icon.png> in the bar, and all that was hidden before is shown.</p>")
    found = sifted(tmp_path, pages(tmp_path / "site", p__html=page, icon__png=picture(22, 22)), need_both=False)
    assert "Click the icon in the bar, and all" in found.records[0].piece().text


@pytest.mark.parametrize(
    ("alt", "kept"),
    [
        ("A lamp of brass", True),
        ("the KEEPER of  the light", False),
        ("IMG_1234.jpg", False),
        ("1", False),
        ("", False),
    ],
)
def test_alt_text_is_kept_where_it_says_more(tmp_path, alt, kept):
    page = html("One", f"<img src=a.png alt='{alt}'><p>{LONG}</p>")
    folder = pages(tmp_path / "site", p__html=page, a__png=picture())
    after = [one for one in sifted(tmp_path, folder).records[0].piece().segments if isinstance(one, Text)][-1].text
    assert after == (f"{alt}\n\n{LONG}" if kept else LONG)
    without = sifted(tmp_path, folder, alt_text=False).records[0].piece().text
    assert "brass" not in without


def test_alt_texts_do_not_hide_images_in_a_row_or_a_lone_last_one(tmp_path):
    three = "".join(f"<img src={n}.png alt='Picture of {n} things'>" for n in range(3))
    files = {f"{n}__png": picture(seed=n) for n in range(3)}
    folder = pages(tmp_path / "site", p__html=html("One", three, f"<p>{LONG}</p>"), **files)
    assert sifted(tmp_path, folder).refused == Counter({"images in a row": 1})
    (kept,) = sifted(tmp_path, folder, most_images_in_a_row=None).records
    kinds = [isinstance(one, Image) for one in kept.piece().segments]
    assert kinds == [False, True, False, True, False, True, False]
    last = pages(tmp_path / "last", p__html=html("One", "<img src=0.png alt='A picture of it'>"), **files)
    assert sifted(tmp_path, last).refused == Counter({"no image": 1})


def test_images_lie_beside_the_page_below_the_folder_or_in_the_page(tmp_path):
    inline = "data:image/png;base64," + __import__("base64").b64encode(picture(seed=2)).decode()
    links = ["img/a%20b.png?x=1#y", "/top.png", "../top.png", inline, "data:text/plain,x"]
    folder = pages(tmp_path / "site", top__png=picture(seed=1))
    (folder / "sub" / "img").mkdir(parents=True)
    (folder / "sub" / "img" / "a b.png").write_bytes(picture(seed=0))
    (folder / "sub" / "p.html").write_text(html("One", *(f"<img src='{one}'><p>{LONG} {one[:9]}</p>" for one in links)))
    found = sifted(tmp_path, folder)
    assert [image.source for image in found.records[0].piece().images] == [picture(seed=n) for n in (0, 1, 2)]
    assert found.left_out == Counter({"duplicate image": 1, "unreadable image": 1})


def archive(folder: Path, *records: bytes, compress: bool = True, cut: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    content = warc(records, compress)
    (folder / f"a.warc{'.gz' if compress else ''}").write_bytes(content[: len(content) - cut])
    return folder


@pytest.mark.parametrize("compress", [True, False])
def test_archives_hold_pages_and_their_images(tmp_path, compress):
    page = html("One", f"<img src='../img/a.png'><p>{LONG}</p><img src='https://other.example/b.png'><p>{LONG} b</p>")
    zipped = gzip.compress(html("Two", f"<base href=/img/><img src=a.png><p>{LONG}</p>").encode())
    folder = archive(
        tmp_path / "crawl",
        record("https://a.example/img/a.png", "image/png", picture(seed=1)),
        record("https://a.example/x/one", "text/html; charset=utf-8", page.encode()),
        record("https://other.example/b.png", "image/png", picture(seed=2)),
        record("https://a.example/two", "text/html", zipped, more="Content-Encoding: gzip\r\n"),
        compress=compress,
    )
    found = sifted(tmp_path, folder, fetch=False)
    assert [[image.source for image in one.piece().images] for one in found.records] == [
        [picture(seed=1), picture(seed=2)],
        [picture(seed=1)],
    ]
    assert not found.refused and not found.left_out


def test_what_a_damaged_archive_still_holds_is_kept(tmp_path):
    pages = [record(f"https://a.example/{n}", "text/html", html(f"Page {n}").encode()) for n in range(3)]
    cut = sifted(tmp_path, archive(tmp_path / "cut", *pages, compress=False, cut=len(pages[-1]) - 40), need_both=False)
    assert len(cut.records) == 2 and cut.refused.total() == 1
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.warc").write_bytes(b"no archive at all\n" * 50)
    (tmp_path / "junk" / "b.warc.gz").write_bytes(b"")
    assert sifted(tmp_path, tmp_path / "junk").refused == Counter({"unreadable file": 2})


def test_counts_are_never_too_low_and_seldom_too_high():
    counts = RepeatCounter(slots=1 << 16)
    keys = [key_of(str(number)) for number in range(1 << 14)]
    for number, key in enumerate(keys):
        for _ in range(1 + (number % 8 == 0)):
            counts.add(key)
    found = [counts[key] for key in keys]
    assert all(count >= 1 + (number % 8 == 0) for number, count in enumerate(found))
    assert sum(count > 2 for count in found) < len(keys) // 100
    assert key_of("A  b") == key_of("a b") != key_of("a", "b")


def test_a_page_of_endless_tags_is_refused(tmp_path):
    folder = pages(tmp_path / "site", p__html="<b>" * 100_001, q__html=html("One"))
    assert sifted(tmp_path, folder, need_both=False).refused == Counter({"large page": 1})
