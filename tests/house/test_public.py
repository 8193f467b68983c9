"""The names at the package's root: each lazy, each typed, each there."""

from __future__ import annotations

import ast

import pytest

import lorgnette
from tests.house.source import modules


def test_type_checkers_see_what_users_get():
    (root,) = (module for module in modules("lorgnette") if module.path == "lorgnette/__init__.py")
    (block,) = (node for node in root.tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names if alias.asname == alias.name}
    assert seen == lorgnette._HOMES


@pytest.mark.parametrize("name", lorgnette.__all__)
def test_a_public_name_imports_and_explains_itself(name):
    value = getattr(lorgnette, name)
    assert value.__doc__
    assert name in dir(lorgnette)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = lorgnette.lode
