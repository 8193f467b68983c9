"""The language of the package is that of its field: a reader who greps for a term lands on its definition."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.house.source import Module, modules, texts

TERMS = (
    "activation checkpointing",
    "attention mask",
    "chat template",
    "checkpoint manager",
    "data loader",
    "divergence monitor",
    "gradient accumulation",
    "image feature cache",
    "KV cache",
    "LM head",
    "loss mask",
    "NEFTune",
    "prompt template",
    "reference",
    "sequence lengths",
)
"""Terms of transformers, torchtitan, TRL and the paper: each stands in the name or docstring of a definition."""

BANNED = (
    r"gone on with",
    r"goes on with",
    r"learns? on\b",
    r"\banew\b",
    r"\bby lot\b",
    r"\bhangs? on\b",
    r"the watch for",
    r"in the order of their luck",
    r"\beyes\b, words",
    r"says so and",
    r"\bfor want of\b",
    r"\bas of old\b",
)
"""A private dialect: each of these has a plain word."""

INTERROGATIVE = re.compile(r"^(What|How|Where|When|Whether|Which|Who|Why)\b")
MOST_INTERROGATIVE = 0.02
DOCUMENTED = ("lorgnette", "corpus", "tests", "scripts", "benchmarks")
"""Folders of Python whose docstrings are read, each by itself: a large one hides no small one."""
Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(module: Module) -> Iterator[tuple[str, int, str]]:
    """Each definition of a module with a docstring: its name, its line and the docstring."""
    for node in module.nodes:
        if isinstance(node, Definition) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", module.name), getattr(node, "lineno", 1), text


def attributes(module: Module) -> Iterator[tuple[int, str]]:
    """Docstrings of fields and constants: strings that stand behind an assignment, each with its line."""
    bodies = [body for node in module.nodes if isinstance(body := getattr(node, "body", None), list)]
    for before, after in (pair for body in bodies for pair in pairwise(body)):
        text = after.value if isinstance(after, ast.Expr) else None
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Constant):
            yield after.lineno, str(text.value)


def words_of(name: str) -> str:
    """An identifier as words: `KVCache` and `kv_cache` are `kv cache`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", " ", name).lower()


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_the_field_has_a_definition(term):
    found = [
        f"{module.path}:{line}"
        for module in modules("lorgnette")
        for name, line, text in definitions(module)
        if term.lower() in words_of(name) or term.lower() in text.split("\n\n")[0].lower().replace("\n", " ")
    ]
    assert found, f"no definition of {term!r}: a newcomer who searches for it finds nothing"


@pytest.mark.parametrize("folder", DOCUMENTED)
def test_docstrings_begin_with_a_noun_or_a_verb(folder):
    """Those of modules, classes, functions, fields and constants."""
    found = [(module.path, line, text) for module in modules(folder) for _, line, text in definitions(module)]
    found += [(module.path, line, text) for module in modules(folder) for line, text in attributes(module)]
    asking = [f"{path}:{line}: {text[:60]}" for path, line, text in found if INTERROGATIVE.match(text)]
    assert len(asking) <= MOST_INTERROGATIVE * len(found), "\n".join(asking)


def test_a_docstring_of_a_field_is_found():
    (one,) = attributes(Module("a.py", "class A:\n    size: int\n    '''How large.'''\n    b = 1"))
    assert one == (3, "How large.") and INTERROGATIVE.match(one[1])


def test_no_sentence_speaks_a_private_dialect():
    pattern = re.compile("|".join(BANNED))
    kept = ("docs/notebook.md", "docs/decisions/", "CHANGELOG.md", "tests/", "benchmarks/results/")
    lines = [
        f"{path}:{number}: {line.strip()[:90]}"
        for path, text in texts().items()
        if path.endswith((".py", ".md", ".yaml", ".html")) and not path.startswith(kept)
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not lines, "\n".join(lines)


def exported(module: Module) -> Iterator[str]:
    """Classes and constants that a module defines at its top and does not mark as private."""
    for node in module.tree.body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            targets = [ast.Name(node.name)]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name) and target.id[0].isupper())


def test_no_class_or_constant_is_exported_by_two_modules():
    homes: dict[str, list[str]] = {}
    for module in modules("lorgnette"):
        for name in exported(module):
            homes.setdefault(name, []).append(module.path)
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_no_file_name_is_that_of_two_modules():
    """But for `config`, `__init__`, and the name of a benchmark in `tasks/` and `metrics/`."""
    homes: dict[str, list[str]] = {}
    for module in modules("lorgnette"):
        folder, _, name = module.path.rpartition("/")
        if name not in ("config.py", "__init__.py", "__main__.py") and not folder.endswith("/metrics"):
            homes.setdefault(name, []).append(module.path)
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}
