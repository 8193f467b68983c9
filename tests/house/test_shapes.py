"""Shapes live in names: every letter of a suffix such as `_THN` stands in the legend at the top of `model/vlm.py`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import Module, modules

SUFFIX = re.compile(r"^_?[a-z][a-z0-9_]*_([A-Z]+)$")


def legend() -> dict[str, str]:
    """Letter -> meaning, from phrases like `T tokens` in the docstring of `lorgnette/model/vlm.py`."""
    (vlm,) = (module for module in modules("lorgnette") if module.path == "lorgnette/model/vlm.py")
    docstring = re.sub(r"\s+", " ", ast.get_docstring(vlm.tree) or "")
    return dict(re.findall(r"\b([A-Z]) ([a-z][^,.]*)[,.]", docstring))


def names(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr


def suffixes(module: Module) -> dict[str, str]:
    """Name -> its shape suffix."""
    return {name: match[1] for name in names(module) if (match := SUFFIX.match(name))}


@pytest.mark.parametrize("module", modules("lorgnette"), ids=lambda module: module.path)
def test_every_letter_of_a_shape_is_in_the_legend(module):
    unknown = {name for name, suffix in suffixes(module).items() if not set(suffix) <= legend().keys()}
    assert not unknown, f"{module.path}: not in the legend of lorgnette/model/vlm.py: {', '.join(sorted(unknown))}"


def test_the_legend_is_found():
    assert {"T", "P", "C", "I", "V", "D", "H", "G", "N", "S", "K"} <= legend().keys()
