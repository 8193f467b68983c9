"""Mutations of bytes, text, JSON and YAML: each a function of a random generator and good inputs."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

DEEP = ("[" * 2_000, '{"a":' * 5_000, "- " * 3_000, "[" * 50_000 + "]" * 50_000, "{a: " * 1_500, "(" * 5_000)
DIGITS = ("9" * 5_000, "-" + "1" * 5_000, "1e" + "9" * 400, "0x" + "f" * 5_000)
SNIPPETS = (
    *("2024-13-45", "!!int abc", "!!float x", "!!binary x", "!!timestamp x", "!!set {a}", "!!python/object:os x"),
    *("&a [*a]", "*a", "<<: 1", "? [a]: b", "²", "٣", "１", "-1", "0", "1e400", "NaN", ".inf", "-Infinity", "null"),
    *("\x00", "\ud800", "\\ud83c", "\ufeff", "\u202e", "\U0001f600", "\r", "\t", "'", '"', "`", "<image>", "</s>"),
    *("http://[", "//[x", "http://127.0.0.1:9/a.png", "data:,", "data:image/png;base64,@", "file:///dev/null", "../x"),
    *("{{ 1 }}", "{% for x in y %}", "{% endfor %}", "{{ x.__class__ }}", "{#", "\ue0000\ue001", "\ue00099\ue001"),
    *("<img src=a.png>", "<base href='http://[x'>", "<table><td>", "<svg>", "&#xD800;", "<!--", "]]>", "%PDF-1.4"),
    *("true", "[]", "{}", "[null]", "{a: 1}", " ", "", "=", ".", "...", "/", ":", ",", "-", "endobj", "x" * 9_000),
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 256, 65_535, 10**6, 10**9, 2**31, 2**32, 2**63, 10**19, -(2**63), 0.5, 1e308, -0.0)
MAGIC = tuple(bytes([value]) * count for value in (0, 1, 0x7F, 0x80, 0xFF) for count in (1, 2, 4, 8))


def mutate_bytes(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """One of the files with some bytes changed, cut out, doubled or put in; more often near its start."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
        size = len(content)
        at = rng.randrange(min(size, 300) if rng.random() < 0.5 else size) if size else 0
        long = rng.choice((1, 2, 4, 16, 200))
        match rng.randrange(7):
            case 0 | 1 if size:
                content[at] = rng.randrange(256)
            case 2:
                some = rng.choice(MAGIC)
                content[at : at + len(some)] = some
            case 3:
                del content[at : at + long]
            case 4:
                content[at:at] = content[at : at + long] * rng.choice((1, 2, 50))
            case 5:
                content[at : at + 4] = rng.randrange(2**32).to_bytes(4, rng.choice(("big", "little")))
            case _:
                content[at:at] = rng.randbytes(long)
    return bytes(content[: rng.randrange(len(content) + 1)]) if rng.random() < 0.1 else bytes(content)


def mutate_text(rng: Random, seeds: Sequence[str]) -> str:
    """One of the texts with some characters changed, cut out, doubled or taken from another, or snippets put in."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at = rng.randrange(len(text) + 1)
        long = rng.choice((1, 2, 5, 30))
        match rng.randrange(8):
            case 0:
                text = text[:at] + text[at + long :]
            case 1:
                text = text[:at] + text[at : at + long] * rng.choice((2, 3, 60)) + text[at + long :]
            case 2:
                other = rng.choice(seeds)
                text = text[:at] + other[rng.randrange(len(other) + 1) :]
            case 3:
                text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0xD800)))) + text[at + 1 :]
            case 4:
                text = text[:at] + rng.choice((*DEEP, *DIGITS)) + (text[at:] if rng.random() < 0.5 else "")
            case _:
                text = text[:at] + rng.choice(SNIPPETS) + text[at + rng.choice((0, long)) :]
    return text


def encoded(text: str) -> bytes:
    """A text as the bytes of a file; lone surrogates too, as a careless program writes them."""
    return text.encode("utf-8", "surrogatepass")


def mutate_json(rng: Random, seeds: Sequence[Any]) -> str:
    """One of the values with some inner values replaced, removed, renamed, doubled or nested, as JSON text."""
    value = mutate_value(rng, seeds)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    return mutate_text(rng, [text]) if rng.random() < 0.2 else text


def mutate_yaml(rng: Random, seeds: Sequence[Any]) -> str:
    """As `mutate_json`: all JSON is YAML, and block style comes of a mutation of the text."""
    import yaml

    value = mutate_value(rng, seeds)
    text = json.dumps(value) if rng.random() < 0.3 else yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return mutate_text(rng, [text]) if rng.random() < 0.5 else text


def mutate_value(rng: Random, seeds: Sequence[Any]) -> Any:
    """One of the values with one to five of its inner values changed."""
    value = copy.deepcopy(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        holder = [value]
        *parents, last = rng.choice(_places(value))
        inner: Any = holder[0]
        for key in parents[1:]:
            inner = inner[key]
        if not parents:
            value = _changed(rng, value, seeds)
            continue
        match rng.randrange(6):
            case 0:
                del inner[last]
            case 1 if isinstance(inner, dict):
                inner[rng.choice((*SNIPPETS, f"{last} ", str(last).upper()))] = inner.pop(last)
            case 2 if isinstance(inner, list):
                inner[last:last] = [copy.deepcopy(inner[last])] * rng.choice((1, 2, 40))
            case _:
                inner[last] = _changed(rng, inner[last], seeds)
    return value


def _places(value: Any, path: tuple[Any, ...] = (None,)) -> list[tuple[Any, ...]]:
    """Keys that lead to each inner value. The first, of the whole, is None; at most a few thousand."""
    items: Sequence[Any] = ()
    if isinstance(value, dict):
        items = list(value.items())[:200]
    elif isinstance(value, list):
        items = list(enumerate(value))[:50]
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))]


def _changed(rng: Random, value: Any, seeds: Sequence[Any]) -> Any:
    """Another value in the place of one."""
    match rng.randrange(10):
        case 0 | 1:
            return rng.choice((*NUMBERS, float("nan"), float("inf"), None, True, False))
        case 2:
            return rng.choice(([], {}, [None], [[]], {"": None}, "", " ", int("9" * 4_000)))
        case 3:
            return [value]
        case 4:
            return {rng.choice(("type", "text", "bytes", "path", "url", "0", "")): value}
        case 5:
            deep: Any = value
            for _ in range(rng.choice((3, 60, 101))):
                deep = [deep] if rng.random() < 0.5 else {"a": deep}
            return deep
        case 6 if isinstance(value, str):
            return mutate_text(rng, [value])
        case 6 if isinstance(value, int | float):
            return rng.choice((str(value), -value, value * 10**6, value % 7))
        case 7:
            other: Any = rng.choice(seeds)
            while isinstance(other, dict | list) and other and rng.random() < 0.7:
                other = rng.choice(list(other.values()) if isinstance(other, dict) else other)
            return copy.deepcopy(other)
        case _:
            return rng.choice(SNIPPETS)
