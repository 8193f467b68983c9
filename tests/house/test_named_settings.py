"""Settings and options that the documentation names exist: in prose and in blocks, in Markdown and in YAML."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from functools import cache

import click
import pytest
import typer.main
import yaml

from corpus.__main__ import app as corpus_app
from lorgnette.cli import app
from lorgnette.run import Run
from lorgnette.settings import Settings
from lorgnette.study.config import Study
from tests.house.source import BLOCK, texts
from tests.house.walking import steps

PAGES = sorted(path for path in texts() if path.endswith(".md") and not path.startswith(("CHANGELOG", "docs/notebook")))
"""Every page but the two that tell of the past."""
SPAN = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)+)(?:=.*)?")
OVERRIDE = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)*)=\S.*")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
FILES = ("py", "md", "yaml", "yml", "json", "jsonl", "txt", "html", "svg", "toml", "parquet", "safetensors")
OTHER_PROGRAMS = {"--hinting": "pyftsubset", "--backend": "vllm bench serve"}
"""Options that a page names without the command of their program."""


@cache
def groups() -> tuple[type[Settings], ...]:
    """Every class of settings within `Run` and `Study`, `Run` first."""
    found: dict[type[Settings], None] = {}
    waiting: list[type[Settings]] = [Study, Run]
    while waiting:
        group = waiting.pop()
        if group not in found:
            found[group] = None
            waiting += [one for name in group.model_fields for one in inside(group, name)]
    return tuple(found)


@cache
def inside(group: type[Settings], name: str) -> tuple[type[Settings], ...]:
    """Classes of settings that the value of a setting may be of."""

    def classes(annotation: typing.Any) -> Iterator[type[Settings]]:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            yield annotation
        for argument in typing.get_args(annotation):
            yield from classes(argument)

    return tuple(classes(group.model_fields[name].annotation))


def is_setting(path: str, roots: tuple[type[Settings], ...] = ()) -> bool:
    """Return whether a dotted path leads from one of the roots (by default any group) to a setting."""
    here = roots or groups()
    *parents, last = [part for part in path.split(".") if not part.isdecimal()]
    for part in parents:
        here = tuple(one for group in here if part in group.model_fields for one in inside(group, part))
    return any(last in (*group.model_fields, "preset") for group in here)


def begins(path: str) -> bool:
    """Return whether a dotted path begins as one of settings does: with a group within the tree."""
    first = path.split(".")[0]
    return any(first in group.model_fields and inside(group, first) for group in groups())


def settings_in(text: str) -> Iterator[str]:
    """Dotted paths of settings that a span of code names, and overrides of a command."""
    match = DOTTED.fullmatch(text)
    if match and begins(match[1]) and not match[1].endswith(tuple(f".{ending}" for ending in FILES)):
        yield match[1]


def named_settings(page: str) -> Iterator[str]:
    text = texts()[page]
    for span in SPAN.findall(BLOCK.sub("", text)):
        yield from settings_in(span)
        if span.startswith("lorgnette "):
            yield from overrides_in(span)
    for step in steps(text):
        if step.kind == "bash" and not any("no such setting" in line for line in step.output):
            yield from overrides_in(step.body)


def overrides_in(line: str) -> Iterator[str]:
    """Overrides of a command line, quoted or not."""
    words = re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line.split("  #")[0])
    before = ""
    for word in words if "lorgnette" in words[:3] else ():
        match = OVERRIDE.fullmatch(word.strip("'\""))
        if match and not before.startswith("--"):
            yield match[1]
        before = word


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_named_in_a_page_exists(page):
    assert {path for path in named_settings(page) if not is_setting(path)} == set()


def unknown_keys(values: typing.Any, roots: tuple[type[Settings], ...], at: str = "") -> Iterator[str]:
    """Keys of nested settings that no class has which their place can hold."""
    if isinstance(values, list):
        for value in values:
            yield from unknown_keys(value, roots, at)
    for key, value in values.items() if isinstance(values, dict) else ():
        owners = [group for group in roots if key in group.model_fields]
        there = tuple(one for group in owners for one in inside(group, key))
        plugin = ":" in str(values.get("kind", ""))  # whose settings are its own
        if key != "preset" and not plugin and not owners:
            yield f"{at}{key}"
        elif there:
            named = typing.get_origin(owners[0].model_fields[key].annotation) is dict  # as scales of a study are
            for one in value.values() if named else [value]:
                yield from unknown_keys(one, there, f"{at}{key}.")


def mappings(page: str) -> Iterator[typing.Any]:
    """Settings as a page writes them in YAML: blocks, and spans such as `{kind: chat, path: mine.jsonl}`."""
    text = texts()[page]
    for span in SPAN.findall(BLOCK.sub("", text)):
        whole = re.fullmatch(r"(?:[\w.]+[=:] ?)?(\{\w+: .*\})", span)
        if whole:
            yield yaml.safe_load(span if re.match(r"\w+: ", span) else whole[1])
    for language, body in BLOCK.findall(text):
        if language == "yaml":
            yield yaml.safe_load(body)


@pytest.mark.parametrize("page", PAGES)
def test_every_key_of_yaml_in_a_page_exists(page):
    assert [key for values in mappings(page) for key in unknown_keys(values, groups())] == []


def options(command: click.Command) -> set[str]:
    """Options of a command, and of those below it."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help"}, *map(options, getattr(command, "commands", {}).values()))


@cache
def commands() -> tuple[click.Command, click.Command]:
    return typer.main.get_command(app), typer.main.get_command(corpus_app)


def command_of(words: list[str]) -> click.Command:
    """The command that the words behind `lorgnette` name."""
    command = commands()[0]
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return command


@pytest.mark.parametrize("page", PAGES)
def test_every_option_named_in_a_page_exists(page):
    text = texts()[page]
    lines = [line for _, body in BLOCK.findall(text) for line in body.replace("\\\n", " ").splitlines()]
    unknown = set()
    for line in [*lines, *SPAN.findall(BLOCK.sub("", text))]:
        words = line.removeprefix("$ ").removeprefix("PYTHONPATH=. ").split()
        if words[:1] == ["lorgnette"]:
            known = options(command_of(words[1:3]))
        elif words and words[0].startswith("--"):
            known = set().union(*map(options, commands())) | OTHER_PROGRAMS.keys()
        else:
            continue  # another program's command line
        unknown |= set(OPTION.findall(line)) - known
    assert unknown == set()


def test_what_does_not_exist_is_found():
    assert is_setting("stages.0.lr", (Run,)) and is_setting("pack.tokens") and is_setting("model.language.preset")
    assert not is_setting("stages.0.learning_rate", (Run,)) and not is_setting("pack.token")
    assert list(overrides_in("lorgnette train demo 'stages.2.sources.0={kind: chat}' --data a=b")) == [
        "stages.2.sources.0"
    ]
    assert list(unknown_keys({"stages": [{"pack": {"tokens": 1, "sheep": 2}}]}, (Run,))) == ["stages.pack.sheep"]
    assert "--dry-run" in options(command_of(["train"])) and "--dry-run" not in options(command_of(["eval", "compare"]))
