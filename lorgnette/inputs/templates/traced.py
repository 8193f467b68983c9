"""Strings that know where each of their characters came from: the template itself, or one content of a conversation.

A chat template computes with these as with any other string: it may trim, split, join or upper-case what a user wrote.
Afterwards every character still has its origin, so that `<image>` written by the template is an image and `<image>`
typed by a user, or put together from what a user typed, is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from typing import Any, SupportsIndex

import jinja2

from lorgnette.inputs.templates.budget import MAX_WIDTH, budget, check_width

TEMPLATE = "\0"
"""Origin of characters that the template wrote; content number n has the origin `chr(n + 1)`."""


class Untraceable(jinja2.TemplateError):
    """An operation on a content after which the origin of characters is unknown."""

    def __init__(self, operation: str) -> None:
        super().__init__(f"it applies {operation} to a message's content, after which what is text cannot be told")


def traced(text: str, origin: str) -> Traced:
    """A string with an origin for each character."""
    made = str.__new__(Traced, text)
    made._origin = origin
    return made


def lifted(text: str) -> Traced:
    """A string as a traced one; a plain one was written by the template."""
    return text if isinstance(text, Traced) else traced(text, TEMPLATE * len(text))


def origin_of(text: str) -> str:
    """For each character of a string its origin."""
    return text._origin if isinstance(text, Traced) else TEMPLATE * len(text)


def holds_content(value: Any) -> bool:
    """Return whether a string, or any string inside lists and mappings, holds characters of a content."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Traced) and one._origin.strip(TEMPLATE):
            return True
        if isinstance(one, Mapping):
            waiting.extend([*one.keys(), *one.values()])
        elif isinstance(one, list | tuple | set):
            waiting.extend(one)
    return False


def text_of(value: Any) -> str:
    """A value as a template writes it. Raises: Untraceable for a list or mapping of contents."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float | jinja2.Undefined):
        return str(value)
    budget().charge(value)
    if not isinstance(value, list | tuple | dict | range) or holds_content(value):
        raise Untraceable(f"printing (of a {type(value).__name__})")
    return str(value)


def joined(parts: Iterable[str], between: str = "") -> str:
    """Strings end to end; a plain string if no part is traced."""
    parts = list(parts)
    budget().room(sum(map(len, parts)) + len(between) * len(parts))
    text = str.join(between, parts)
    if not isinstance(between, Traced) and not any(isinstance(part, Traced) for part in parts):
        return text
    return traced(text, origin_of(between).join(map(origin_of, parts)))


class Traced(str):
    """A string with `_origin`, a string of the same length: the origin of each character.

    Methods are those of `str`. Raises: Untraceable from those after which origins are unknown.
    """

    _origin: str

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> str:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        budget().room(len(self) * max(0, int(times)))
        return traced(str.__mul__(self, times), self._origin * int(times))

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> str:
        return percent_format(self, values)

    def __getitem__(self, key: Any) -> str:
        return traced(str.__getitem__(self, key), self._origin[key])

    def __iter__(self) -> Iterator[str]:
        return map(traced, str.__iter__(self), self._origin)

    def strip(self, chars: str | None = None) -> str:
        left = len(self) - len(str.lstrip(self, chars))
        return self[left : left + len(str.strip(self, chars))]

    def lstrip(self, chars: str | None = None) -> str:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> str:
        return self[: len(str.rstrip(self, chars))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(str.rsplit(self, sep, maxsplit), sep)

    def _placed(self, parts: list[str], sep: str | None) -> list[str]:
        """Parts of a split with their origins."""
        budget().room(len(parts))
        found, at = list[str](), 0
        for part in parts:
            at = str.find(self, part, at) if sep is None else at  # only white space stands between
            found.append(self[at : at + len(part)])
            at += len(part) + len(sep or "")
        return found

    def splitlines(self, keepends: bool = False) -> list[str]:
        found, at = list[str](), 0
        for whole, line in zip(str.splitlines(self, True), str.splitlines(self), strict=True):
            found.append(self[at : at + len(whole if keepends else line)])
            at += len(whole)
        return found

    def partition(self, sep: str) -> tuple[str, str, str]:
        return self._three(str.partition(self, sep))

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        return self._three(str.rpartition(self, sep))

    def _three(self, parts: tuple[str, str, str]) -> tuple[str, str, str]:
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self[:first], self[first:second], self[second:]

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        if old:
            return joined(self.split(old, count), new)
        if int(count) == 0:
            return self
        if int(count) > 0:
            raise Untraceable("replace of nothing")
        return joined(("", *self, ""), new)

    def removeprefix(self, prefix: str) -> str:
        return self[len(prefix) :] if prefix and str.startswith(self, prefix) else self

    def removesuffix(self, suffix: str) -> str:
        return self[: -len(suffix)] if suffix and str.endswith(self, suffix) else self

    def upper(self) -> str:
        return self._changed(str.upper(self), "upper")

    def lower(self) -> str:
        return self._changed(str.lower(self), "lower")

    def casefold(self) -> str:
        return self._changed(str.casefold(self), "casefold")

    def swapcase(self) -> str:
        return self._changed(str.swapcase(self), "swapcase")

    def capitalize(self) -> str:
        return self._changed(str.capitalize(self), "capitalize")

    def title(self) -> str:
        return self._changed(str.title(self), "title")

    def translate(self, table: Any) -> str:
        if holds_content(table):
            raise Untraceable("translate")
        return self._changed("".join(str.translate(char, table) for char in str.__iter__(self)), "translate")

    def zfill(self, width: SupportsIndex) -> str:
        return self._changed(str.zfill(self, check_width(width, "zfill")), "zfill")

    def expandtabs(self, tabsize: SupportsIndex = 8) -> str:
        budget().room(len(self) + str.count(self, "\t") * abs(check_width(tabsize, "expandtabs")))
        return self._changed(str.expandtabs(self, tabsize), "expandtabs")

    def _changed(self, text: str, operation: str) -> str:
        """A text made of this one: of as many characters, or of characters of one origin."""
        if len(text) == len(self):
            return traced(text, self._origin)
        found = set(self._origin)
        if len(found) > 1:
            raise Untraceable(operation)
        return traced(text, (found.pop() if found else TEMPLATE) * len(text))

    def center(self, width: SupportsIndex, fillchar: str = " ") -> str:
        wanted = check_width(width, "center")
        missing = max(0, wanted - len(self))
        left = missing // 2 + (missing & wanted & 1)  # as str.center shares an odd number
        return joined((lifted(fillchar) * left, self, lifted(fillchar) * (missing - left)))

    def ljust(self, width: SupportsIndex, fillchar: str = " ") -> str:
        return joined((self, lifted(fillchar) * max(0, check_width(width, "ljust") - len(self))))

    def rjust(self, width: SupportsIndex, fillchar: str = " ") -> str:
        return joined((lifted(fillchar) * max(0, check_width(width, "rjust") - len(self)), self))

    def join(self, parts: Iterable[str]) -> str:
        return joined(parts, self)

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        if holds_content(self):
            raise Untraceable("encode")
        return str.encode(self, encoding, errors)

    def format(self, *values: Any, **named: Any) -> str:
        return brace_format(self, values, named)

    def format_map(self, named: Any) -> str:
        return brace_format(self, (), named)


_PERCENT = re.compile(r"%(?:\((?P<key>[^)]*)\))?(?P<options>[-#0 +]*(?:\*|\d+)?(?:\.(?:\*|\d+)?)?)(?P<kind>.)", re.S)


def percent_format(form: str, values: Any) -> str:
    """`form % values`. Raises: jinja2.TemplateError for a width beyond the limit, Untraceable for `%r` of a content."""
    positional = iter(values if isinstance(values, tuple) else (values,))
    parts, at = list[str](), 0
    for place in _PERCENT.finditer(form):
        parts.append(lifted(form)[at : place.start()])
        at = place.end()
        key, options, kind = place["key"], place["options"], place["kind"]
        if kind == "%":
            parts.append("%")
            continue
        value = next(positional, positional) if key is None else values[key]
        if value is positional:
            raise TypeError("not enough arguments for format string")
        parts.append(_percent_value(options, kind, value))
    parts.append(lifted(form)[at:])
    if not isinstance(values, Mapping) and next(positional, positional) is not positional:
        raise TypeError("not all arguments converted during string formatting")
    return joined(parts)


def _percent_value(options: str, kind: str, value: Any) -> str:
    if kind == "s" and not options:
        return text_of(value)
    if "*" in options or any(int(number[:9]) > MAX_WIDTH for number in re.findall(r"\d+", options)):
        raise jinja2.TemplateError(f"formatting to a width beyond {MAX_WIDTH}")
    if not isinstance(value, int | float | str) or holds_content(value):
        raise Untraceable(f"formatting (%{options}{kind})")
    return f"%{options}{kind}" % (value,)


def brace_format(form: str, values: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    """`form.format(*values, **named)` of plain fields. Raises: Untraceable for options, jinja2.TemplateError."""
    parts, rest, counter = list[str](), str(lifted(form)), iter(range(len(values)))
    for literal, name, options, conversion in Formatter().parse(form):
        # Braces are doubled in a literal, so that it is found in the form piece by piece.
        for piece in re.split(r"([{}])", literal):
            start = str.find(rest, piece)
            parts.append(rest[start : start + len(piece)])
            rest = rest[start + len(piece) :]
        if name is None:
            continue
        if options or conversion or re.search(r"[.\[]", name):
            raise Untraceable(f"format ({{{name[:40]}...}})")
        key: Any = next(counter) if name == "" else int(name) if name.isdecimal() else name
        parts.append(text_of(values[key] if isinstance(key, int) else named[key]))
        rest = rest[str.find(rest, "}") + 1 :]
    return joined(parts)
