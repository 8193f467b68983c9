"""Untrusted JSON and YAML end in a value of plain types, or in one sentence that names the text."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lorgnette import cli, untrusted
from lorgnette.errors import DataError, SettingsError
from lorgnette.settings import typed
from lorgnette.untrusted import parse_yaml, read_json, read_yaml

JSON_REFUSED = {
    "nested lists": "[" * 2000,
    "closed nested lists": "[" * 101 + "]" * 101,
    "nested objects": '{"a":' * 50_000,
    "a number of 5,000 digits": "9" * 5000,
    "such a number within": '{"a": [' + "9" * 5000 + "]}",
    "no JSON": "{'a': 1}",
    "nothing": "",
    "no text": b"\xff\xfe\xfd",
}
YAML_REFUSED = {
    "nested flow lists": "[" * 2000,
    "nested block lists": "- " * 2000,
    "nested mappings": "{a: " * 2000,
    "a number of 5,000 digits": "seed: " + "9" * 5000,
    "a tag that does not fit": "!!int abc",
    "a float that is none": "!!float x",
    "a binary that is none": "!!binary x",
    "a timestamp that is none": "!!timestamp x",
    "a Python object": "!!python/object/apply:os.system ['true']",
    "a list as a key": "[1]: 2",
    "a list that holds itself": "&a [*a]",
    "aliases that grow": "\n".join(
        ["a0: &a0 [1, 1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    ),
    "no YAML": "a: [",
}


@pytest.mark.parametrize("text", JSON_REFUSED.values(), ids=JSON_REFUSED)
def test_json_is_refused_in_one_short_sentence(text):
    with pytest.raises(DataError, match=r"^rows\.json: ") as refused:
        untrusted.parse_json(text, "rows.json")
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", YAML_REFUSED.values(), ids=YAML_REFUSED)
def test_yaml_is_refused_in_one_short_sentence(text):
    with pytest.raises(SettingsError, match=r"^run\.yaml: ") as refused:
        untrusted.parse_yaml(text, "run.yaml", SettingsError)
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


def test_values_of_a_hundred_levels_are_read():
    nested = "[" * 100 + "]" * 100
    assert untrusted.parse_json(nested, "x") == json.loads(nested)
    assert untrusted.parse_yaml(nested, "x") == json.loads(nested)


def test_dates_are_text():
    assert untrusted.parse_yaml("[2024-13-45, 2024-01-02, 2024-01-02 03:04:05]", "x") == [
        "2024-13-45",
        "2024-01-02",
        "2024-01-02 03:04:05",
    ]


def test_files_are_read_with_a_byte_order_mark_and_refused_by_name(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert untrusted.read_yaml(tmp_path / "a.yaml") == {"a": 1}
    for read in (untrusted.read_json, untrusted.read_yaml):
        with pytest.raises(DataError, match=r"gone: no such file"):
            read(tmp_path / "gone")
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path)
        with pytest.raises(DataError, match="cannot be read"):
            read("a\0b")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    monkeypatch.setattr(untrusted, "MAX_BYTES", 4)
    with pytest.raises(DataError, match="limit of 4 bytes"):
        untrusted.read_json(tmp_path / "a.json")


def test_quoted_text_is_short_and_on_one_line():
    assert untrusted.quoted("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert len(untrusted.quoted("x" * 10**6)) == 200
    assert untrusted.quoted("\ud800" * 300).encode() and len(untrusted.quoted("\x00" * 300)) <= 200


@pytest.mark.parametrize("text", ["a: 1\na: 2", "{a: 1, b: {c: 1, c: 2}}", "- a: 1\n  a: 1", "'a': 1\na: 2"])
def test_a_key_that_stands_twice_is_refused_by_name(text):
    with pytest.raises(DataError, match=r"the key '[ac]' stands twice"):
        parse_yaml(text, "here")


def test_yaml_without_the_surprises_of_its_first_version():
    values = parse_yaml("{a: 010, b: 1:30, c: 1:30.5, d: 0o17, e: 0x1f, f: -1_000, g: 1.5, h: 0, i: .inf}", "here")
    assert values == {
        "a": "010", "b": "1:30", "c": "1:30.5", "d": "0o17", "e": 31, "f": -1000, "g": 1.5, "h": 0, "i": float("inf"),
    }  # fmt: skip
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}", "here") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file"):
            read(path)


@dataclass
class Typed:
    name: str
    counts: tuple[int, ...] = ()


def test_a_parsed_value_becomes_a_dataclass_or_a_sentence():
    assert typed(Typed, {"name": "a", "counts": [1, 2], "later": None}, "here") == Typed("a", (1, 2))
    for value in (None, [], "a", {}, {"name": 1}, {"name": "a", "counts": 1}, {"name": "a", "counts": [None]}):
        with pytest.raises(DataError, match="here: is damaged"):
            typed(Typed, value, "here")


@pytest.mark.parametrize("name", ["two\nlines", "red\x1b[31m", "back\x08", "turned\u202etxt"])
def test_an_error_is_one_line_that_steers_no_terminal_whatever_a_file_is_called(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lorgnette", "show", str(tmp_path / name)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.endswith("\n") and said[:-1].isprintable() and name[:3] in said


def test_a_file_that_is_read_again_is_a_value_of_its_own(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: [1]", encoding="utf-8")
    first = read_yaml(path)
    first["a"].append(2)
    assert read_yaml(path) == {"a": [1]}
    path.write_text("a: [3]", encoding="utf-8")
    assert read_yaml(path) == {"a": [3]}
