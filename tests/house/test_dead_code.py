"""Every function, class, method and constant of the package is used by something other than tests."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from tests.house.source import Module, modules, texts

USERS = modules("lorgnette", "corpus", "scripts", "benchmarks")
"""Code that may use a definition of the package. Tests may not keep one alive."""

EXCEPTIONS = {
    "lorgnette/eval/models/lmms_eval.py:LorgnetteSimple": "lmms-eval opens it by name",
    "lorgnette/inputs/downloader.py:_Timed.makefile": "http.client reads a socket by it",
    "lorgnette/plugins.py:forget": "public: after a package was installed while a program runs",
    "lorgnette/model/flops.py:ModelCost.trained_parameters": "public: parameters that a stage trains, by modes",
}
"""`path:Class.method` or `path:NAME` -> who uses it, where that cannot be seen."""

ORACLES = ("plain_", "dense_attention")
"""Prefixes of the names of plain versions, which tests compare a kernel of `model/ops/` with."""

PLAIN = {
    "property",
    "cached_property",
    "staticmethod",
    "classmethod",
    "cache",
    "lru_cache",
    "dataclass",
    "contextmanager",
}
"""Decorators that call nothing by themselves; others (of typer, pydantic, abc) use what they decorate."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def definitions(module: Module) -> Iterator[tuple[str, Definition]]:
    """`NAME` or `Class.method`, and node, of all that a module defines, but fields of classes and inner functions."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            functions = (inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef))
            yield from ((f"{node.name}.{inner.name}", inner) for inner in functions)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((one.id, node) for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def reads(tree: ast.AST) -> Counter[str]:
    """Count of the reads of each name: as a name, an attribute, or a string that is one."""
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            found[node.id] += 1
        elif isinstance(node, ast.Attribute):
            found[node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found[node.value] += node.value.isidentifier()
    return found


@cache
def read_everywhere() -> Counter[str]:
    """Over all code, and the words of templates, settings of the project and what the package exports."""
    total: Counter[str] = Counter()
    for module in USERS:
        total.update(reads_of(module))
    others = [text for path, text in texts().items() if path.endswith((".jinja", "pyproject.toml"))]
    return total + Counter(re.findall(r"\w+", " ".join([*others, texts()["lorgnette/__init__.py"]])))


@cache
def imported() -> frozenset[str]:
    """`module.name` of everything that is imported from one of our modules, and modules that are imported whole."""
    nodes = [node for module in USERS for node in module.nodes]
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = (node for node in nodes if isinstance(node, ast.ImportFrom))
    return frozenset(whole | {f"{node.module}.{alias.name}" for node in named for alias in node.names})


def is_live(module: Module, name: str, node: Definition) -> bool:
    """Return whether something uses a definition: for a method, any read of its name on any object."""
    last = name.split(".")[-1]
    whole = module.name in imported() or module.name in strings()  # imported whole, to read its attributes
    if "." in name or whole:
        return read_everywhere()[last] > reads(node)[last] or overrides(module, name)
    here = reads_of(module)[last] > reads(node)[last]
    return here or f"{module.name}.{name}" in imported() or last in strings()


@cache
def reads_of(module: Module) -> Counter[str]:
    return reads(module.tree)


@cache
def strings() -> frozenset[str]:
    """Every string of the code, and the words of texts that name code: settings of the project, what is exported."""
    nodes = (node for module in USERS for node in module.nodes)
    texts_that_name = texts()["pyproject.toml"] + texts()["lorgnette/__init__.py"]
    return frozenset({str(node.value) for node in nodes if isinstance(node, ast.Constant)}) | set(
        re.findall(r"\w+", texts_that_name)
    )


def overrides(module: Module, name: str) -> bool:
    """Return whether a method overrides one of a class from outside the package, which calls it."""
    owner, _, method = name.partition(".")
    try:
        bases = getattr(getattr(importlib.import_module(module.name), owner), "__mro__", None) if method else ()
    except ModuleNotFoundError as error:  # of a package that is not installed: it calls what it asks for
        return not str(error.name).startswith("lorgnette")
    if bases is None:  # a decorator of another package made something else of the class, and calls it
        return True
    return any(hasattr(base, method) for base in bases if not base.__module__.startswith("lorgnette"))


def unused() -> list[str]:
    """Definitions that nothing uses but themselves and tests."""
    found = []
    for module in modules("lorgnette"):
        for name, node in definitions(module):
            last = name.split(".")[-1]
            decorators = {ast.unparse(one).split("(")[0].split(".")[-1] for one in getattr(node, "decorator_list", [])}
            oracle = last.startswith(ORACLES) and "/ops/" in module.path
            if not (last.startswith("__") or decorators - PLAIN or oracle or is_live(module, name, node)):
                found.append(f"{module.path}:{name}")
    return found


def test_nothing_is_used_by_tests_alone():
    assert [name for name in unused() if name not in EXCEPTIONS] == []


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_still_defined(name):
    path, _, name = name.partition(":")
    assert [module for module in modules("lorgnette") if module.path == path and name in dict(definitions(module))]
