"""Limits of markup, checked before it is parsed: the time of a parser grows with the square of some numbers."""

from __future__ import annotations

import codecs
import re

MOST_TAGS = 100_000
"""A page with more than this is no page to read."""
MOST_DEPTH = 10_000
"""Elements within elements; browsers keep 512. Deeper ones take a parser minutes."""
MOST_ATTRIBUTES = 20_000
"""Attributes of one element."""

VOID = frozenset(b"area base br col embed hr img input link meta source track wbr".split())
CLOSED_BY_OTHERS = frozenset(
    b"p li dt dd tr td th thead tbody tfoot colgroup caption option optgroup html head body".split()
)
"""Elements that end where the next one begins, but within drawings and formulas."""

_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
FOREIGN = re.compile(rb"<(?:svg|math)", re.IGNORECASE)
ATTRIBUTE = rb"""[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"?|'[^']*+'?|[^\s>"'][^\s>]*+)?)?"""
"""As the HTML standard reads it; without white space behind a quote too."""
ENDLESS = re.compile(rb"<[a-zA-Z][^\s/>]*+(?:%s){%d}" % (ATTRIBUTE, MOST_ATTRIBUTES))


def beyond_limits(content: bytes | str) -> str:
    """Return why markup should not be parsed; "" if it may be."""
    text = _as_ascii(content)
    if (tags := text.count(b"<")) > MOST_TAGS:
        return f"{tags:,} tags"
    if _depth(text) > MOST_DEPTH:
        return f"elements nested deeper than {MOST_DEPTH:,}"
    # an attribute is at least a character and what parts it from the next one
    if len(text) > 2 * MOST_ATTRIBUTES and ENDLESS.search(text):
        return f"an element of more than {MOST_ATTRIBUTES:,} attributes"
    return ""


def _as_ascii(content: bytes | str) -> bytes:
    """The markup with its tags as single bytes, whatever its encoding."""
    if isinstance(content, bytes):
        if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content
        content = content.decode("utf-16", "replace")
    return content.encode("utf-8", "replace")


def _depth(text: bytes) -> int:
    """Elements that are open at the same time at most, nearly."""
    passing = VOID if FOREIGN.search(text) else VOID | CLOSED_BY_OTHERS
    depth = deepest = 0
    for slash, name in _TAG.findall(text):
        if name.lower() in passing:
            continue
        depth = max(0, depth - 1) if slash else depth + 1
        deepest = max(deepest, depth)
    return deepest
