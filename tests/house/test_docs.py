"""Every link in a document leads somewhere, and every decision has its number."""

from __future__ import annotations

import re

import pytest

from tests.house.source import BLOCK, ROOT, texts

DOCUMENTS = sorted(path for path in texts() if path.endswith(".md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)[^>]+(?:src|href)=\"([^\"]+)\"")


def anchors(path: str) -> set[str]:
    """The anchors that a document's headings make."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", texts()[path]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    broken = []
    for markdown, html in LINK.findall(BLOCK.sub("", texts()[document])):
        target, _, anchor = (markdown or html).partition("#")
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path = (ROOT / document).parent / target if target else ROOT / document
        if not path.exists():
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(path.resolve().relative_to(ROOT).as_posix()):
            broken.append(f"{target}#{anchor}: no such heading")
    assert not broken


def test_decisions_are_numbered_and_listed():
    decisions = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    numbers = [int(name[:4]) for name in decisions]
    assert numbers == sorted(set(numbers)) and numbers[0] == 1
    listed = (ROOT / "docs/decisions/README.md").read_text(encoding="utf-8")
    for name in decisions:
        assert f"]({name})" in listed
        assert (ROOT / "docs/decisions" / name).read_text(encoding="utf-8").startswith(f"# {name[:4]} - ")
