"""Write docs/reference: pages and a JSON Schema that are made from the code, so that they never differ from it.

usage: make reference, or PYTHONPATH=. python scripts/reference.py
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer.main

import lorgnette
from lorgnette.cli import app
from lorgnette.cli.settings_reference import SettingsGroup, all_groups, schema
from lorgnette.data.config import FilesConfig, SourcePlugin
from lorgnette.eval.benchmark_prompts import VARIANTS, PromptTemplate, Question, question_sample
from lorgnette.eval.metrics import METRICS
from lorgnette.eval.task import prompt_of, transcript
from lorgnette.eval.tasks import BENCHMARKS
from lorgnette.sample import Image
from scripts.source_examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
MADE = "This page is made by `make reference` from the code; a test keeps it fresh.\n"
SCHEMA = "run.schema.json"


def pages() -> dict[str, str]:
    """Content of each file of docs/reference, by its name."""
    return {
        "settings.md": settings_page(),
        "sources.md": sources_page(),
        "cli.md": cli_page(),
        "benchmarks.md": benchmarks_page(),
        "python.md": python_page(),
        SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
    }


def settings_page() -> str:
    """Every group of settings of a run, with a table each."""
    parts = [
        f"# Settings\n\n{MADE}",
        "A recipe is a YAML file of these settings, and `lorgnette train RECIPE stages.0.lr=1e-4` changes one; a stage"
        " may be named instead of numbered. `lorgnette settings stages.lora` prints a group in the terminal. Editors"
        f" complete and check a recipe by [its JSON Schema]({SCHEMA}): put `# yaml-language-server: $schema=PATH`, with"
        " the path of that file, on its first line; `lorgnette settings --schema` prints it.\n",
    ]
    parts += [_group(one) for one in all_groups() if not issubclass(one.cls, FilesConfig)]
    parts.append("The settings of sources are on [their own page](sources.md).\n")
    return "\n".join(parts)


def _group(group: SettingsGroup, level: int = 2) -> str:
    head = f"{'#' * level} {group.title}\n\n{group.about}\n\n"
    return head + _table(("setting", "type", "default", "meaning"), group.settings())


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, *others in rows:
        cells = [f"`{name}`", *(cell.replace("|", "\\|") for cell in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sources_page() -> str:
    """Kinds of sources, with an example row of each form."""
    groups = [one for one in all_groups() if issubclass(one.cls, FilesConfig) and not issubclass(one.cls, SourcePlugin)]
    common = set(FilesConfig.model_fields)
    parts = [
        f"# Sources\n\n{MADE}",
        "A source is a line of a stage: `{kind: chat, path: mine.jsonl}`. `path` is a file, a folder, a glob, a URL"
        " that fsspec opens, or the id of a data set on the hub (`owner/name`). Files of rows are JSON, JSONL, parquet,"
        " Arrow (as `save_to_disk` of `datasets` writes it) or WebDataset (`.tar`); JSON, CSV and tar may be compressed"
        " (`.gz`, `.zst`, `.bz2`, `.xz`). Images are paths from the file's folder or `image_folder`, `data:` URLs,"
        " links, or bytes. `lorgnette tune` finds the kind by itself.\n",
        "## Settings of every source\n",
        _table(
            ("setting", "type", "default", "meaning"),
            (row for row in groups[0].settings() if row[0] in common),
        ),
    ]
    for group in groups:
        parts.append(f"## {group.kind}\n\n{group.about}\n")
        for one in (one for one in EXAMPLES if one.kind == group.kind):
            language = "json" if one.file.endswith((".json", ".jsonl")) else "html" if ".html" in one.file else "csv"
            note = f" {one.note}" if one.note else ""
            parts.append(f"{one.form}, in `{one.file}`:{note}\n\n```{language}\n{one.content.rstrip()}\n```\n")
        own = [row for row in group.settings() if row[0] not in common and row[0] != "kind"]
        if own:
            parts.append(_table(("setting", "type", "default", "meaning"), iter(own)))
    return "\n".join(parts)


def cli_page() -> str:
    """Every command, with its arguments and options."""
    command = typer.main.get_command(app)
    parts = [f"# Command line\n\n{MADE}", f"{command.help}\n"]
    for name, one in sorted(_commands(command, "lorgnette")):
        usage = " ".join(str(parameter.name).upper() for parameter in one.params if _is_argument(parameter))
        parts.append(f"## {name}\n\n`{' '.join(filter(None, (name, usage)))}`\n\n{inspect.cleandoc(one.help or '')}\n")
        rows = [_parameter(parameter) for parameter in one.params if parameter.name != "help"]
        if rows:
            parts.append(_table(("argument or option", "default", "meaning"), iter(rows)))
    return "\n".join(parts)


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield name, command
    for word, one in inner.items():
        if not one.hidden:
            yield from _commands(one, f"{name} {word}")


def _is_argument(parameter: click.Parameter) -> bool:
    return parameter.param_type_name == "argument"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    name = str(parameter.name).upper() if _is_argument(parameter) else ", ".join(parameter.opts)
    default = parameter.default() if callable(parameter.default) else parameter.default
    said = "required" if parameter.required else "" if default in (None, False, ()) else str(default)
    return name, said, " ".join((parameter.help or "").split())


QUESTION = Question("What colour is the car?", (Image("car.png"),), ("red",), query="What colour is the car?")
CHOICE = Question(
    "What colour is the car?",
    (Image("car.png"),),
    ("B",),
    options=("blue", "red"),
    query="What colour is the car?\n(A) blue\n(B) red",
)


def benchmarks_page() -> str:
    """Each benchmark with its data, metric and exact prompts, shown for one question."""
    parts = [
        f"# Benchmarks\n\n{MADE}",
        "`lorgnette eval --model MODEL --tasks NAME` asks one; `NAME:SPLIT` another split of it. The prompts are those"
        " of the question *What colour is the car?* about one image; of two options, where a benchmark has options."
        f" `--variant` chooses the wording ({', '.join(VARIANTS)}); `--shots` asks in the form of a document.\n",
    ]
    for one in BENCHMARKS.values():
        splits = ", ".join(
            f"{name} ({split.size:,} rows)" if split.size else name for name, split in one.splits.items()
        )
        about = f"{one.about[:1].upper()}{one.about[1:]}"
        parts.append(f"## {one.name}\n\n{about}. Metric `{one.metric}`; data `{one.data}`; splits: {splits}; asked:")
        parts[-1] += f" {one.split}; licence: {one.licence}.\n"
        said: dict[str, list[str]] = {}
        for variant in VARIANTS:
            for text in _prompts(one.chat[variant]):
                said.setdefault(text, []).append(variant)
        parts += [f"{', '.join(dict.fromkeys(names))}:\n\n```prompt\n{text}\n```\n" for text, names in said.items()]
        document = "\n".join(filter(None, [one.base.instruction.strip(), *_prompts(one.base, "base")]))
        parts.append(f"as a document:\n\n```prompt\n{document}\n```\n")
    words = ", ".join(f"`{name}`" for name in METRICS)
    parts.append(f"## Metrics\n\n`--metric` takes one of {words}.\n")
    return "\n".join(parts)


def _prompts(template: PromptTemplate, form: str = "chat") -> list[str]:
    """Prompts of a template for the question, and for the one with options where it is worded otherwise."""
    questions = [QUESTION, CHOICE] if template.choices else [QUESTION]
    if not template.choices and any(mark in template.ask for mark in ("{options}", "{hint}")):
        questions = [CHOICE]
    return [transcript(prompt_of(question_sample(one, template, form, "example"))) for one in questions]  # type: ignore[arg-type]


def python_page() -> str:
    """The names of the package, with their signatures and docstrings."""
    parts = [f"# Python\n\n{MADE}", "`import lorgnette` is quick; each name is imported when it is first used.\n"]
    for name in lorgnette.__all__:
        value = lorgnette._HOMES[name]
        made = getattr(__import__(value, fromlist=[name]), name)
        kind = "class " if inspect.isclass(made) else ""
        signature = str(inspect.signature(made)) if not kind or "__init__" in vars(made) or _is_dataclass(made) else ""
        parts.append(f"## lorgnette.{name}\n\n```py\n{kind}{name}{_wrapped(signature)}\n```\n")
        parts.append(f"{inspect.cleandoc(made.__doc__ or '')}\n\nIn `{value}`.\n")
    return "\n".join(parts)


def _is_dataclass(value: Any) -> bool:
    return hasattr(value, "__dataclass_fields__")


def _wrapped(signature: str) -> str:
    """A signature on lines of their own where it is long."""
    if len(signature) < 90:
        return signature
    inner, _, returned = signature.rpartition(")")
    depth, parts, last = 0, [], 0
    for place, sign in enumerate(inner[1:], 1):
        depth += (sign in "[(") - (sign in "])")
        if sign == "," and not depth:
            parts.append(inner[last + 1 : place].strip())
            last = place
    parts.append(inner[last + 1 :].strip())
    return "(\n    " + ",\n    ".join(parts) + f",\n){returned}"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"Wrote {(FOLDER / name).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
