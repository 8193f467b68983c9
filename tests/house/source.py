"""The package's own source, parsed once, for the tests of the house."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]

OURS = {"lorgnette", "corpus"}
"""The packages of the repository: what is installed, and what makes the corpus that it carries."""

Function = ast.FunctionDef | ast.AsyncFunctionDef

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A fenced block of a document: its language and its body."""


@dataclass(frozen=True)
class Module:
    """One Python file. `path` is relative to the repository."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """As it is imported: `lorgnette/model/vlm.py` is `lorgnette.model.vlm`, a room's `__init__.py` is the room."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree, walked once."""
        return tuple(ast.walk(self.tree))

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function with its name: `path:Class.method` or `path:outer.inner`."""
        yield from ((f"{self.path}:{name}", node) for name, node in _functions(self.tree, ""))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield f"{prefix}{child.name}", child
        inner = f"{prefix}{child.name}." if isinstance(child, Function | ast.ClassDef) else prefix
        yield from _functions(child, inner)


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """All Python files under the folders."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(_module(path) for path in paths)


@cache
def _module(path: Path) -> Module:
    return Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@cache
def names() -> frozenset[str]:
    """Every module of our packages, as it is imported."""
    return frozenset(module.name for module in modules(*sorted(OURS)))


def imports(module: Module) -> Iterator[str]:
    """Every module that this one imports, those inside functions too: `from lorgnette.eval import task` is the task."""
    known = names()
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.path}:{node.lineno}: write imports in full, from lorgnette.…"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else str(node.module)


def packages(module: Module) -> set[str]:
    """The packages from outside that a module imports."""
    return {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names - OURS


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file of the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(path for name in sorted(set(listed.split("\0")) - {""}) if (path := ROOT / name).is_file())


@cache
def texts() -> dict[str, str]:
    """Every text file of the repository by its relative path."""
    found = {}
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found[path.relative_to(ROOT).as_posix()] = content.decode("utf-8", errors="replace")
    return found
