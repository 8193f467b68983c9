"""Main content of a web page: blocks of text with pictures in their places, without menus and boilerplate.

The order is that of the markup, which is what a reader without style sheets gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lorgnette.errors import DataError

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

LINKED = 0.5
"""Share of a block's characters that stand in links, beyond which it is a menu."""
GOOD_WORDS, GOOD_CHARACTERS = 10, 60
"""A block of so many words, or of so many characters where words are not parted by spaces, is content."""
SHARE_OF_MAIN = 0.4
"""Share of a page's text that its `main` or only `article` holds at least where it is the content."""

_UNSEEN = frozenset(
    "script style template svg iframe object embed canvas audio video map button input select textarea datalist"
    " nav footer dialog head annotation annotation-xml".split()
)
BLOCKS = frozenset(
    "html body main article section div header p h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption colgroup thead tbody"
    " tfoot tr td th blockquote figure figcaption pre hr address details summary center form fieldset legend aside"
    " hgroup search menu".split()
)
HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_ROLES = frozenset(
    "navigation banner contentinfo complementary search menu menubar dialog alertdialog toolbar tablist".split()
)
FURNITURE = frozenset(
    "nav navbar navigation navheader navfooter navbox menu breadcrumb breadcrumbs footer sidebar cookie cookies consent"
    " gdpr ad ads advert advertisement adsbygoogle promo popup modal social share sharing related comments subscribe"
    " newsletter pagination pager toc masthead editsection catlinks noprint login signup".split()
)
"""Words of a class or id that say that an element is not content."""
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)

BREAK = "\x0b"
"""Stands for a line break until white space has been reduced."""
SPACE = re.compile(r"[ \t\r\n\f\xa0\u2007\u202f]+")
NO_WIDTH = re.compile("[\u00ad\u200b\u2060\ufeff]")
_WORDS = re.compile(r"[A-Za-z][a-z]*|\d+")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image element: where its file is, as the page says it, and its alternative text."""

    link: str
    alt: str = ""


BlockPart = str | Picture


@dataclass(slots=True)
class Block:
    """A paragraph, heading, list item or table row: text and the pictures within it, in order."""

    parts: list[BlockPart] = field(default_factory=list)
    kind: str = "text"
    linked: int = 0
    """Characters that stand in links."""

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str)).strip()

    @property
    def pictures(self) -> list[Picture]:
        return [part for part in self.parts if isinstance(part, Picture)]

    @property
    def is_good(self) -> bool:
        """Return whether it is long enough to be content, and no menu."""
        text = self.text
        return (len(text.split()) >= GOOD_WORDS or len(text) >= GOOD_CHARACTERS) and not self.is_menu

    @property
    def is_menu(self) -> bool:
        return self.linked > LINKED * len("".join(self.text.split())) and self.kind != "heading"


@dataclass(frozen=True, slots=True)
class Markup:
    """The content of a page."""

    blocks: tuple[Block, ...]
    base: str = ""
    """Base address of the page's links, from its `<base>`; empty for the page's own address."""


def read_markup(content: bytes | str) -> Markup:
    """The main content of a page. Broken markup is read as browsers do; nothing is too broken to be read.

    content: bytes are decoded as the page declares, else as UTF-8.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise DataError("reading HTML needs `pip install 'lorgnette[data]'`") from None
    parser = LexborHTMLParser(content, encoding=isinstance(content, bytes))
    base = parser.css_first("base[href]")
    root = _main(parser)
    blocks = () if root is None else tuple(_content(_blocks(root)))
    return Markup(blocks, (base.attributes.get("href") or "") if base is not None else "")


def _main(parser: LexborHTMLParser) -> LexborNode | None:
    """The element that the page itself calls its content, if that holds a good part of it; else the body."""
    body = parser.body
    if body is None:
        return None
    whole = _size(body)
    for selector in ("main", "[role=main]", "article"):
        found = parser.css(selector)
        if len(found) == 1 and _size(found[0]) >= SHARE_OF_MAIN * whole:
            return found[0]
    return body


def _size(node: LexborNode) -> int:
    return sum(len((text.text_content or "").strip()) for text, _ in _walk(node, _is_unseen) if text.is_text_node)


def _walk(root: LexborNode, skip: object) -> Iterator[tuple[LexborNode, bool]]:
    """Elements and texts below `root` in order; an element comes before what it holds (True) and after it (False)."""
    assert callable(skip)
    stack = [(root, True)]
    while stack:
        node, entering = stack.pop()
        if entering and node.is_element_node and node.mem_id != root.mem_id and skip(node):
            continue
        yield node, entering
        if entering and node.is_element_node:
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))


def _is_unseen(node: LexborNode) -> bool:
    return node.tag in _UNSEEN


@dataclass(slots=True)
class _About:
    """Facts of an element and of all below it."""

    inside_article: bool
    size: int = 0
    """Characters of the texts below it."""
    headed: bool = False
    """True if the element is or holds a heading of the page, or its content."""
    parted: bool = False
    """True if the element holds blocks or images."""


def _survey(root: LexborNode) -> dict[int, _About]:
    """Facts of each element below `root`, by identity: found in one walk, however deep elements are nested."""
    found: dict[int, _About] = {}
    stack = [_About(_inside_article(root))]
    for node, entering in _walk(root, lambda node: False):
        if node.is_text_node:
            stack[-1].size += len((node.text_content or "").strip())
        elif node.is_element_node and entering:
            inside = stack[-1].inside_article
            found[node.mem_id] = _About(inside)
            stack.append(_About(inside or node.tag in ("article", "main")))
        elif node.is_element_node:
            below, about, tag = stack.pop(), found[node.mem_id], node.tag
            about.size, about.parted = below.size, below.parted
            about.headed = below.headed or tag in ("main", "article", "h1")
            stack[-1].size += 0 if tag in _UNSEEN else about.size
            stack[-1].headed |= about.headed
            stack[-1].parted |= about.parted or tag in BLOCKS or tag == "img"
    return found


def _is_furniture(node: LexborNode, root_size: int, survey: dict[int, _About]) -> bool:
    """Return whether an element is not part of what the page has to say."""
    tag, about = node.tag, node.attributes
    if tag in _UNSEEN or "hidden" in about or about.get("aria-hidden") == "true":
        return True
    if _HIDDEN.search(about.get("style") or "") or about.get("role") in _ROLES:
        return True
    if tag in ("main", "article", "body") or not (tag in ("aside", "header") or _words(about) & FURNITURE):
        return False
    known = survey[node.mem_id]
    if tag in ("aside", "header") and known.inside_article:
        return False
    return not known.headed and known.size < 0.5 * root_size


def _words(about: dict[str, str | None]) -> set[str]:
    names = f"{about.get('class') or ''} {about.get('id') or ''}"
    return {word.lower() for word in _WORDS.findall(names)} | {name.lower() for name in names.split()}


def _inside_article(node: LexborNode) -> bool:
    above = node.parent
    while above is not None:
        if above.tag in ("article", "main"):
            return True
        above = above.parent
    return False


class _Builder:
    """Takes elements and texts in order, and makes blocks of them."""

    def __init__(self, survey: dict[int, _About]) -> None:
        self.survey = survey
        self.blocks: list[Block] = []
        self.block = Block()
        self.links = self.raw = self.without_script = 0
        self.lists: list[int | None] = []
        self.mark = ""
        self.row: set[int] = set()
        """Cells of rows that are one block, by the identity of their elements."""

    def flush(self, kind: str = "text") -> None:
        """End a block, and begin one."""
        block = _finished(self.block, self.raw > 0)
        if block is not None:
            if self.mark and block.text:
                block.parts.insert(0, self.mark)
                block.kind, self.mark = "item", ""
            self.blocks.append(block)
        self.block = Block(kind=kind)

    def text(self, text: str) -> None:
        if self.without_script:
            return
        self.block.parts.append(text)
        if self.links:
            self.block.linked += len("".join(text.split()))

    def enter(self, node: LexborNode) -> None:
        tag = node.tag
        if node.mem_id in self.row:
            if any(isinstance(part, str) and part.strip() for part in self.block.parts):
                self.block.parts.append(" | ")
        elif tag in BLOCKS:
            self.flush("heading" if tag in HEADINGS else "pre" if tag == "pre" else "text")
        if tag in ("ul", "ol", "menu"):
            self.lists.append(_start(node) if tag == "ol" else None)
        elif tag == "li":
            self._item()
        elif tag == "tr":
            self.row |= _plain_cells(node, self.survey)
        elif tag == "br":
            self.block.parts.append("\n" if self.raw else BREAK)
        elif tag == "img" and (picture := _picture(node)):
            self.block.parts.append(picture)
        self.links += tag == "a"
        self.raw += tag == "pre"
        self.without_script += tag == "noscript"

    def leave(self, node: LexborNode) -> None:
        tag = node.tag
        if tag in BLOCKS and node.mem_id not in self.row:
            self.flush()
        if tag in ("ul", "ol", "menu") and self.lists:
            self.lists.pop()
        self.links -= tag == "a"
        self.raw -= tag == "pre"
        self.without_script -= tag == "noscript"

    def _item(self) -> None:
        number = self.lists[-1] if self.lists else None
        self.mark = "- " if number is None else f"{number}. "
        if number is not None:
            self.lists[-1] = number + 1


def _blocks(root: LexborNode) -> list[Block]:
    survey, size = _survey(root), _size(root)
    builder = _Builder(survey)
    for node, entering in _walk(root, lambda node: _is_furniture(node, size, survey)):
        if node.is_text_node:
            builder.text(node.text_content or "")
        elif node.is_element_node:
            (builder.enter if entering else builder.leave)(node)
    builder.flush()
    return builder.blocks


def _start(node: LexborNode) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if start.isascii() and start.isdigit() and len(start) < 7 else 1


def _plain_cells(row: LexborNode, survey: dict[int, _About]) -> set[int]:
    """The cells of a table's row if they hold text alone: such a row is one block."""
    cells = [child for child in row.iter() if child.tag in ("td", "th")]
    plain = len(cells) > 1 and not any(survey[cell.mem_id].parted for cell in cells)
    return {cell.mem_id for cell in cells} if plain else set()


def _picture(node: LexborNode) -> Picture | None:
    """The file of an image, which may be named where scripts load it late, or in several sizes."""
    about = node.attributes
    links = [about.get(key) for key in ("data-src", "data-original", "data-lazy-src", "src")]
    link = next((link.strip() for link in links if link and link.strip()), "")
    widest = _widest(about.get("srcset") or about.get("data-srcset") or "")
    if not link or (link[:5].lower() == "data:" and widest):
        link = widest
    return Picture(link, SPACE.sub(" ", about.get("alt") or "").strip()) if link else None


def _widest(choices: str) -> str:
    """The largest of `a.png 480w, b.png 2x`."""
    found = re.findall(r"(\S*[^\s,])(?:\s+([\d.]+)[wx])?\s*(?:,|$)", choices)
    return str(max(found, key=lambda one: _number(one[1]))[0]) if found else ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _finished(block: Block, raw: bool) -> Block | None:
    """The block with its white space reduced; None if nothing is in it."""
    parts: list[BlockPart] = []
    for part in block.parts:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    parts = [part if isinstance(part, Picture) else _reduced(part, raw) for part in parts]
    if isinstance(parts[0] if parts else None, str):
        parts[0] = str(parts[0]).lstrip("\n" if raw else None)
    if isinstance(parts[-1] if parts else None, str):
        parts[-1] = str(parts[-1]).rstrip()
    kept = [part for part in parts if part]
    if not any(isinstance(part, Picture) or part.strip() for part in kept):
        return None
    return Block(kept, block.kind, block.linked)


def _reduced(text: str, raw: bool) -> str:
    text = NO_WIDTH.sub("", text)
    if raw:
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(f" ?{BREAK}[ {BREAK}]*", "\n", SPACE.sub(" ", text))


def _content(blocks: list[Block]) -> list[Block]:
    """The blocks without menus, from the first heading or long block to the last long one.

    A short text beside a picture is its caption and counts as long. Where no text is long, all is content.
    """
    blocks = [block for block in blocks if block.pictures or not block.is_menu]
    good = [place for place, block in enumerate(blocks) if block.is_good or _is_caption(blocks, place)]
    if not good:
        return blocks
    headings = [place for place in range(good[0]) if blocks[place].kind == "heading"]
    first, last = min([good[0], *headings]), good[-1]
    while first > 0 and not blocks[first - 1].text:
        first -= 1
    while last + 1 < len(blocks) and not blocks[last + 1].text:
        last += 1
    return blocks[first : last + 1]


def _is_caption(blocks: list[Block], place: int) -> bool:
    text = blocks[place].text
    beside = blocks[max(0, place - 1) : place] + blocks[place + 1 : place + 2]
    return len(text.split()) > 1 and not blocks[place].is_menu and any(one.pictures and not one.text for one in beside)
