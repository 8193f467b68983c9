"""Every page has the one look, asks nothing of the network, obeys nothing in its data, and can be read."""

from __future__ import annotations

import re

import jinja2
import pytest

from lorgnette.files import is_own_page
from lorgnette.report.html import render_page
from lorgnette.report.palette import DARK, HUES, LIGHT
from lorgnette.report.visible import visible
from tests.house.source import ROOT
from tests.pages import Page

TEMPLATES = ROOT / "lorgnette/report/templates"
REPORT = {
    "images": 2,
    "records": 1,
    "benchmarks": [{"name": "<script>\u202e", "pictures": 3, "unreadable": [], "matches": 0}],
    "matches": [],
    "most_bits": 7,
    "least_likeness": 0.95,
}


def page() -> str:
    return render_page("contamination.html.jinja", {"report": REPORT, "title": "a & b", "pairs": []})


def test_a_page_asks_nothing_of_the_network_and_runs_no_script():
    html = page()
    assert "default-src 'none'" in html and not re.search(r"https?://|<script|<link|url\(|@import|\son\w+=", html)
    assert "prefers-color-scheme: dark" in html and is_own_page(html.encode())
    assert Page(html).links == []


def test_data_is_escaped_and_nothing_in_it_is_invisible():
    assert "<script>⟨U+202E⟩" in Page(page()).text and "a & b" in Page(page()).text


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        render_page("contamination.html.jinja", {"report": REPORT, "pairs": []})


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_no_template_switches_escaping_off(path):
    assert not re.search(r"\|\s*safe\b|autoescape", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("[!bp]*")), ids=lambda path: path.name)
def test_every_page_extends_the_one_base(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{% extends "base.html.jinja" %}')
    assert "#" not in "".join(re.findall(r"color: ?(\S+);", text)), "colours are variables of the palette"


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_surface(scheme):
    """Contrast of 4.5 for text and 3 for marks, as the accessibility guidelines (WCAG 2) ask."""
    for hue in ("ink", "soft", "see", "eye", "blind", "right", "wrong"):
        for surface in ("ground", "card"):
            assert contrast(scheme[hue], scheme[surface]) >= 4.5, (hue, surface)
    assert contrast(scheme["soft"], scheme["band"]) >= 4.5
    assert contrast(scheme["see"], scheme["see-wash"]) >= 4.5 and contrast(scheme["eye"], scheme["eye-wash"]) >= 4.5
    for hue in (name for name in HUES if re.fullmatch(r"h\d", name)):
        assert contrast(scheme[hue], scheme["card"]) >= 3, hue


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, été 🟥\n", "plain, été 🟥\n"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\x00b\x1b[31m", "a⟨U+0000⟩b⟨U+001B⟩[31m"),
        ("a\tb", "a⇥\tb"),
        ("a\ud800b", "a\ufffdb"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_nothing_invisible_stays_hidden(text, shown):
    assert visible(text) == shown
