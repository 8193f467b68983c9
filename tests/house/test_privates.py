"""Nobody reaches into another object's privates: `x._name` stands only after `self`, `cls` and `super()`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.house.source import Module, modules

EXCEPTIONS = {
    "_exit": "os has no other name for it",
    "_version": "torch counts changes of a tensor in place there alone",
    "_scaled_dot_product_flash_attention_for_cpu": "torch has no public name for this operation",
    "_MEM_FORMAT_ENCODING": "torch names it in the metadata of its checkpoints",
    "_forward_hooks": "torch has no public way to ask for a module's hooks",
    "_forward_pre_hooks": "the same",
    "_check": "a class method calls it on the object that it has made",
    "_origin": "strings that know what they came from, in two modules that are one machine",
}
"""Attribute -> why it is taken."""


def privates(module: Module) -> Iterator[str]:
    """Names of private attributes that a module takes of anything but the object whose method it is in."""
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls") and not owner.startswith(("super(", "type(self)")):
                yield node.attr


@pytest.mark.parametrize("module", modules("lorgnette", "corpus"), ids=lambda module: module.path)
def test_nobody_reaches_into_another_objects_privates(module):
    assert {name for name in privates(module) if name not in EXCEPTIONS} == set()


def test_every_exception_is_still_needed():
    assert {name for module in modules("lorgnette", "corpus") for name in privates(module)} >= EXCEPTIONS.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("trainer._stop = 1", ["_stop"]), ("self._a + cls._b", []), ("self.run._x", ["_x"]), ("type(self)._y", [])],
)
def test_the_search_finds_what_it_looks_for(text, expected):
    assert list(privates(Module("a.py", text))) == expected
