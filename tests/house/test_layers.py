"""A room imports only rooms of smaller layers. The layers are read from the decision that sets them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest

from tests.house.source import ROOT, Module, modules

DECISION = ROOT / "docs/decisions/0001-the-house.md"

ACROSS = {("inputs", "lorgnette.model.batch"): "what inputs are packed into"}
"""Imports within a layer, each with its reason."""

THIRD_PARTY = {
    "errors": set(),
    "files": set(),
    "settings": {"pydantic", "yaml"},
    "sample": {"PIL"},
    "model": {"pydantic", "torch"},
    "inputs": {"PIL", "jinja2", "numpy", "pydantic", "tokenizers", "torch"},
    "data": {"PIL", "numpy", "pyarrow", "pydantic", "torch"},
    "hub": {"huggingface_hub", "safetensors", "torch"},
    "infer": {"pydantic", "torch"},
    "eval": {"PIL", "numpy", "pydantic"},
    "run": {"pydantic"},
    "train": {"peft", "rich", "safetensors", "torch"},
    "demo": {"PIL", "jinja2", "matplotlib", "numpy", "rich", "torch"},
    "cli": {"rich", "typer"},
}
"""What each room may import from outside. transformers, timm and datasets are in no list: they are oracles of tests."""


def layers() -> dict[str, int]:
    """Room -> layer, from the table of the decision."""
    found = {}
    for layer, rooms in re.findall(r"^\| (\d+) \| (.*) \|$", DECISION.read_text(encoding="utf-8"), re.MULTILINE):
        for room in re.findall(r"`([a-z]+)/?`", re.sub(r"\([^)]*\)", "", rooms)):
            found[room] = int(layer)
    return found


def imports(module: Module) -> Iterator[str]:
    """Every module that this one imports, those inside functions too: `from lorgnette.eval import task` is the task."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.path}:{node.lineno}: write imports in full, from lorgnette.…"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else str(node.module)


def room(name: str) -> str:
    """`lorgnette.model.vlm` is in the room `model`; the package's own root is in none."""
    return [*name.split("."), ""][1]


NAMES = {module.name for module in modules("lorgnette")}
MODULES = [module for module in modules("lorgnette") if room(module.name)]


def test_every_room_has_a_layer():
    rooms = {room(module.name) for module in MODULES}
    assert rooms <= layers().keys(), f"give it a layer in {DECISION.relative_to(ROOT)}"
    assert rooms <= THIRD_PARTY.keys(), "say here what it may import from outside"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_room_imports_only_smaller_layers(module):
    here, layer = room(module.name), layers()
    others = {name for name in imports(module) if name in NAMES and room(name) not in ("", here)}
    wrong = {name for name in others if layer[room(name)] >= layer[here] and (here, name) not in ACROSS}
    assert not wrong, f"{module.path} is in layer {layer[here]} and may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_room_imports_only_the_packages_it_is_allowed(module):
    outside = {name.split(".")[0] for name in imports(module)} - sys.stdlib_module_names - {"lorgnette"}
    assert outside <= THIRD_PARTY[room(module.name)], f"{module.path} imports {', '.join(sorted(outside))}"


@pytest.mark.parametrize(("here", "target"), ACROSS, ids=str)
def test_every_allowed_exception_is_needed(here, target):
    assert any(room(module.name) == here and target in imports(module) for module in MODULES)


@pytest.mark.parametrize("name", sorted(THIRD_PARTY))
def test_every_allowed_package_is_used(name):
    used = {found.split(".")[0] for module in MODULES if room(module.name) == name for found in imports(module)}
    assert not used or THIRD_PARTY[name] <= used, "the list allows what the room does not import"
