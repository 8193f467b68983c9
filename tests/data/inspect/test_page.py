"""The page is whole by itself, obeys nothing that stands in data, and says the same numbers as the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from rich.console import Console

from lorgnette.data.inspect import Preview, print_preview, shares, write_page
from lorgnette.data.inspect import page as page_module
from lorgnette.data.inspect.page import render
from tests.browser import screenshot
from tests.data.inspect.conftest import BLUE, RED
from tests.pages import Page


def test_the_page_asks_nothing_of_the_network_and_runs_no_script(look, decoder):
    html = render(look, decoder)
    page = Page(html)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert "default-src 'none'" in html and "<script" not in html and not re.search(r"\son\w+=", html)
    assert "url(" not in html and "@import" not in html


def test_every_link_within_the_page_leads_somewhere(look, decoder):
    html = render(look, decoder)
    places = set(re.findall(r'id="([^"]+)"', html))
    targets = {link[1:] for link in Page(html).links if link.startswith("#")}
    assert targets and targets <= places


def test_data_is_shown_and_not_obeyed(look, decoder):
    page = Page(render(look, decoder))
    assert "<b>hostile</b>" in page.text
    spelt = page.text.replace(" ", "")
    assert "alert" in spelt and "⟨U+202E⟩" in spelt


def test_the_page_counts_what_is_there(look, decoder):
    page = Page(render(look, decoder))
    for number in (look.total.tokens, look.total.supervised_tokens, look.total.patches, look.total.images):
        assert f"{number:,}" in page.text
    assert "samples" in page.text and "75.0 %" in page.text and "25.0 %" in page.text


def test_faults_stand_at_the_top_by_name(look, decoder):
    marked = [replace(one, fault="nothing is learned") if n == 0 else one for n, one in enumerate(look.documents)]
    pack = replace(look.packs[0], documents=tuple(marked[: len(look.packs[0].documents)]))
    bad = replace(look, packs=(pack,), refused=("row 3: no image",))
    text = Page(render(bad, decoder)).text
    assert "2 samples cannot be trained on" in text and "row 3: no image" in text
    assert f"{marked[0].name}: nothing is learned" in text
    assert "cannot be trained on" not in Page(render(look, decoder)).text


def test_pictures_past_the_budget_are_counted_and_said_to_be_hidden(look, decoder, monkeypatch):
    monkeypatch.setattr(page_module, "_MOST_BYTES", 1500)
    html = render(look, decoder)
    assert html.count("data:image/") < render_count(look) and "not shown" in Page(html).text


def render_count(look: Preview) -> int:
    return sum(len(one.pictures) for one in look.documents)


def test_nothing_to_show_is_a_page_too(decoder):
    empty = Preview("empty", (), shares(["nothing"], [1.0]))
    assert "0 documents" in Page(render(empty, decoder)).text


def test_a_browser_shows_the_pictures_and_every_part(look, decoder, tmp_path):
    page = write_page(tmp_path / "look.html", look, decoder)
    text = Page(page.read_text(encoding="utf-8")).text
    for words in ("Sources", "Lengths and shapes", "Documents", "Length of documents", "Shapes of images"):
        assert words in text
    for shot in screenshot(page, width=1200, height=5200):
        assert shot.size == (1200, 5200)
        seen = {colour for _, colour in shot.convert("RGB").getcolors(2**24)}
        assert RED in seen and BLUE in seen, "the pictures of the samples are not on the screen"


def test_the_terminal_says_the_same(look, decoder):
    console = Console(width=160, record=True, force_terminal=True, color_system="truecolor", file=open_null())
    print_preview(console, look, decoder, most=12)
    text = console.export_text()
    assert f"{look.total.tokens:,} tokens" in text and f"{look.total.supervised_tokens:,} supervised" in text
    assert "▀" in text and "2 visual tokens" in text
    assert f"{look.total.documents - 12:,} of {look.total.documents:,} documents are counted and not shown" in text


def open_null():
    import io

    return io.StringIO()


def test_the_terminal_lists_faults(look, decoder):
    console = Console(width=160, record=True, file=open_null())
    print_preview(console, replace(look, refused=tuple(f"row {n}: no image" for n in range(12))), decoder, most=1)
    text = console.export_text()
    assert "12 samples cannot be trained on" in text and "row 0: no image" in text and "and 2 more" in text
