"""The jinja environment of chat templates: transformers' filters and globals, traced strings, and limits.

A template is a program of unknown origin. It sees plain values only, every operation is charged to a budget
(`budget.py`), and every operation on strings keeps the origin of characters (`traced.py`).
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from lorgnette.inputs.templates.budget import MAX_SOURCE, MAX_WIDTH, budget, check_width
from lorgnette.inputs.templates.traced import (
    Traced,
    Untraceable,
    holds_content,
    joined,
    lifted,
    percent_format,
    text_of,
    traced,
)
from lorgnette.untrusted import quoted

PASSING = (
    "abs attr batch count d default dictsort first float groupby int items last length list map max min reject"
    " rejectattr reverse round select selectattr slice sort sum unique wordcount"
).split()
"""Jinja's own filters that hand on values as they are, or make numbers. The others are below, or not for templates."""
WIDE = ("batch", "slice", "round")
"""Filters among them whose numbers are widths."""


def compiled(source: str) -> jinja2.Template:
    """A chat template as transformers would compile it. Raises: jinja2.TemplateError."""
    if len(source) > MAX_SOURCE:
        raise jinja2.TemplateError(f"it has {len(source):,} characters; {MAX_SOURCE:,} are allowed")
    return ChatEnvironment().from_string(source)


class ChatEnvironment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """A sandbox in which strings are traced and nothing is unlimited."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=text_of,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        self.filters = {name: _limited(name, FILTERS[name]) for name in PASSING}
        self.filters.update({name: _limited(name, function) for name, function in TEXT_FILTERS.items()})
        del self.globals["lipsum"]
        self.globals.update(raise_exception=_refuse, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _Instrument().visit(tree)

    def step(self) -> bool:
        """Called once in every round of a loop, and by its condition."""
        return True  # the call itself is charged

    def concatenated(self, *values: Any) -> str:
        """`a ~ b ~ c`."""
        return joined([text_of(value) for value in values])

    def made(self, value: Any) -> Any:
        """A list or mapping that is written out in the template."""
        return budget().charge(value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call an object for the template, at its expense."""
        budget().step()
        return budget().charge(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator of the template, refused where its result would be too large."""
        budget().step()
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "%" and isinstance(left, str):
            return percent_format(left, right)
        if operator == "*" and not numbers:
            sequence, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int) and hasattr(sequence, "__len__"):
                budget().room(len(sequence) * max(0, times))
        if operator == "**" and (abs(left) > 2**32 or abs(right) > 64):
            raise jinja2.TemplateError("a power of large numbers")
        if operator == "*" and numbers and max(abs(left), abs(right)) > 2.0**64:
            raise jinja2.TemplateError("a product of large numbers")
        return budget().charge(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute. Methods of strings are those of traced strings; numbers have none."""
        return super().getattr(_with_methods(obj), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item, or else an attribute."""
        return super().getitem(_with_methods(obj), argument)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` of traced strings is safe by itself."""
        if isinstance(getattr(value, "__self__", None), Traced) and value.__name__ in ("format", "format_map"):
            return value
        return super().wrap_str_format(value)


def _with_methods(obj: Any) -> Any:
    if isinstance(obj, str):
        return lifted(obj)
    if isinstance(obj, int | float | complex | bytes):
        raise jinja2.TemplateError(f"a {type(obj).__name__} has no attributes here")
    return obj


class _Instrument(NodeTransformer):
    """Rewrites a syntax tree: rounds of loops are counted, `~` and new lists go through the environment."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if isinstance(node, nodes.EvalContextModifier):
            raise jinja2.TemplateError("it switches autoescape, which chat templates have no use for")
        self.generic_visit(node)
        if isinstance(node, nodes.For | nodes.Macro):
            node.body = [nodes.ExprStmt(_of_environment("step")), *node.body]
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(_of_environment("step"), node.test)
        if isinstance(node, nodes.Concat):
            return _of_environment("concatenated", *node.nodes)
        if isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return _of_environment("made", node)
        return node


def _of_environment(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, which marks the assistant's words in transformers: its body is written, in its own scope."""

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Dict:
    """`dict` for templates, without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace` for templates: names that begin with an underscore are refused."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that an attribute may be called `self`
        self, *given = args
        values = dict(*given, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"it sets an attribute {quoted(name, 40)} of a namespace")


def _refuse(message: Any) -> NoReturn:
    """`raise_exception`: the template refuses the conversation."""
    raise jinja2.TemplateError(quoted(str(message)))


def _strftime_now(form: str) -> str:
    """`strftime_now`: the time now. Raises: jinja2.TemplateError for a format with widths."""
    if holds_content(form):
        raise Untraceable("strftime_now")
    if len(form) > MAX_WIDTH or re.search(r"%[^A-Za-z%]*[0-9]{3}", form):
        raise jinja2.TemplateError("a date of a width beyond 100")
    return datetime.datetime.now().strftime(form)


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is charged to the budget."""

    @functools.wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        budget().step()
        if name in WIDE:
            for value in (*args, *kwargs.values()):
                if isinstance(value, int):
                    check_width(value, name)
        return budget().charge(function(*args, **kwargs))

    return charged


def _trim(value: Any, chars: str | None = None) -> str:
    return lifted(text_of(value)).strip(chars)


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return lifted(text_of(value)).replace(text_of(old), text_of(new), -1 if count is None else count)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, value: Any, d: Any = "", attribute: Any = None) -> str:
    values = map(make_attrgetter(environment, attribute), value) if attribute is not None else value
    return joined([text_of(one) for one in values], text_of(d))


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """As jinja's: indents all lines but the first, and empty ones only with `blank`."""
    margin = width if isinstance(width, str) else " " * check_width(width, "indent")
    text = lifted(text_of(value))
    lines = lifted(joined([text, "\n"])).splitlines()
    budget().room(len(text) + len(lines) * len(margin))
    shown = [lines[0], *(joined([margin, line]) if line or blank else line for line in lines[1:])]
    return joined([margin if first else "", joined(shown, "\n")])


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise jinja2.exceptions.FilterArgumentError("can't handle positional and keyword arguments at the same time")
    return percent_format(text_of(value), kwargs or args)


def _title(value: Any) -> str:
    words = re.split(r"([-\s({\[<]+)", str.__str__(lifted(text_of(value))))
    text = lifted(text_of(value))
    made, at = list[str](), 0
    for word in words:
        piece = lifted(text[at : at + len(word)])
        made.append(joined([lifted(piece[:1]).upper(), lifted(piece[1:]).lower()]))
        at += len(word)
    return joined(made)


_ESCAPES = {"&": "&amp;", ">": "&gt;", "<": "&lt;", "'": "&#39;", '"': "&#34;"}


def _escape(value: Any) -> str:
    return joined(_by_character(text_of(value), lambda char: _ESCAPES.get(char, char)))


def _by_character(text: str, change: Callable[[str], str]) -> list[str]:
    """Each character replaced by a function; the replacement has the origin of the character."""
    if not isinstance(text, Traced):
        return [change(char) for char in text]
    return [traced(word := change(char), char._origin * len(word)) for char in text]  # type: ignore[attr-defined]


def tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as transformers' chat templates write it: no escapes of HTML, and of Unicode only with `ensure_ascii`."""
    if indent is not None and not isinstance(indent, str):
        indent = check_width(indent, "tojson")
    margin = (indent if isinstance(indent, int) else len(indent or "")) + 1
    budget().room(margin * _depth_of(value))
    kept: list[Traced] = []

    def plain(inner: Any) -> Any:
        """The value with each traced string replaced by its number between two marks."""
        if isinstance(inner, Traced):
            kept.append(inner)
            return f"\ue000{len(kept) - 1}\ue001"
        if isinstance(inner, str):
            return plain(lifted(inner))
        if isinstance(inner, dict):
            if holds_content(list(inner)):
                raise Untraceable("tojson (of a mapping's names)")
            return {key: plain(item) for key, item in inner.items()}
        return [plain(item) for item in inner] if isinstance(inner, list | tuple) else inner

    text = json.dumps(plain(value), ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    parts = re.split("\ue000([0-9]{1,9})\ue001", text)
    for place in range(1, len(parts), 2):
        words = _by_character(kept[int(parts[place])], lambda char: json.dumps(char, ensure_ascii=ensure_ascii)[1:-1])
        parts[place] = joined(words)
    if ensure_ascii:  # names of mappings
        parts[::2] = ["".join(c if c.isascii() else json.dumps(c)[1:-1] for c in part) for part in parts[::2]]
    return joined(parts)


def _depth_of(value: Any) -> int:
    """Lines that a value may take in JSON, times their depth at most."""
    lines, deepest, waiting = 1, 1, [(value, 1)]
    while waiting:
        inner, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(inner, dict | list | tuple):
            lines += len(inner) + 1
            budget().room(lines)
            items = inner.values() if isinstance(inner, dict) else inner
            waiting.extend((item, depth + 1) for item in items)
    return lines * deepest


TEXT_FILTERS: dict[str, Callable[..., Any]] = {
    "capitalize": lambda value: lifted(text_of(value)).capitalize(),
    "center": lambda value, width=80: lifted(text_of(value)).center(width),
    "e": _escape,
    "escape": _escape,
    "forceescape": _escape,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "lower": lambda value: lifted(text_of(value)).lower(),
    "replace": _replace,
    "safe": text_of,
    "string": text_of,
    "title": _title,
    "tojson": tojson,
    "trim": _trim,
    "upper": lambda value: lifted(text_of(value)).upper(),
}
"""Filters that make text of text."""
