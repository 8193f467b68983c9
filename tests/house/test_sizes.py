"""Limits of size: lines of a function, a class and a file, parameters of a call, files of a flat folder."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.house.source import Function, modules

FUNCTION_LINES, CLASS_LINES, FILE_LINES, PARAMETERS, FILES = 60, 160, 400, 8, 14

EXCEPTIONS = {
    "lorgnette/cli/__init__.py:train": "every option of a command is a parameter",
    "lorgnette/cli/__init__.py:chat": "every option of a command is a parameter",
    "lorgnette/cli/__init__.py:export_": "every option of a command is a parameter",
    "lorgnette/cli/ask.py:look": "every option of a command is a parameter",
    "lorgnette/cli/ask.py:generate": "every option of a command is a parameter",
    "lorgnette/cli/serve.py:serve": "every option of a command is a parameter",
    "lorgnette/cli/tune.py:tune": "every option of a command is a parameter",
    "lorgnette/cli/study.py:run": "every option of a command is a parameter",
    "lorgnette/cli/eval.py:evaluate": "every option of a command is a parameter",
    "class TransformersModel": "all that transformers' models do differently from each other, which waits for a split",
    "class Processor": "one call for each way into the model and out of it, most of them a docstring",
}
"""`path`, `path:Class.function` or `class Name` -> why it is better as it is."""

ONE_FILE_A_KIND = ("lorgnette/eval/tasks", "lorgnette/eval/metrics", "lorgnette/cli")
"""Folders with a file for each benchmark, for each metric and for each verb."""

MODULES = modules("lorgnette", "corpus", "scripts", "benchmarks")


def parameters(function: Function) -> int:
    """Number of parameters, `self` and `cls` not counted."""
    arguments = function.args
    names = [argument.arg for argument in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return len([name for name in names if name not in ("self", "cls")])


def faults() -> dict[str, str]:
    """Everything past a limit, with what is wrong."""
    found = {}
    for module in MODULES:
        if (lines := len(module.text.splitlines())) > FILE_LINES:
            found[module.path] = f"{lines} lines; the limit is {FILE_LINES}"
        for node in ast.walk(module.tree) if module.path.startswith("lorgnette/") else ():
            if isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > CLASS_LINES:
                found[f"class {node.name}"] = f"{module.path}: {lines} lines; the limit of a class is {CLASS_LINES}"
        for name, node in module.functions():
            if (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
                found[name] = f"{lines} lines; the limit is {FUNCTION_LINES}"
            if (count := parameters(node)) > PARAMETERS:
                found[name] = f"{count} parameters; the limit is {PARAMETERS}"
    return found


def test_a_folder_holds_few_files():
    """Folders that hold one file for each kind of a thing may hold more."""
    paths = [Path(one.path) for one in modules("lorgnette")]
    folders = Counter(str(path.parent) for path in paths if path.name != "__init__.py")
    assert {folder: count for folder, count in folders.items() if count > FILES and folder not in ONE_FILE_A_KIND} == {}


def test_nothing_has_outgrown_its_room():
    assert {name: fault for name, fault in faults().items() if name not in EXCEPTIONS} == {}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_still_needed(name):
    assert name in faults(), f"{name} is within the limits again: take it off the list"
