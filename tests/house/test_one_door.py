"""Images are opened in one place, where formats, sizes and errors are looked after."""

from __future__ import annotations

import ast
import re

from tests.house.source import modules

DOOR = "lorgnette/inputs/image_io.py"
OPENERS = re.compile(r"(^|\.)(Image\.open|ImageFile\.Parser|ImageFile)$|\.\w+ImageFile$")
"""Calls that open an image with Pillow: `PIL.Image.open`, a parser of streams, and the class of a format."""


def opened(tree: ast.Module) -> list[str]:
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL")
        for alias in node.names
    ]
    return [name for name in calls + imported if OPENERS.search(name)]


def test_only_the_door_opens_images():
    found = {module.path: names for module in modules("lorgnette") if (names := opened(module.tree))}
    assert found == {DOOR: ["PIL.Image.open"]}


def test_the_rule_sees_every_way():
    source = "from PIL import ImageFile\nImage.open(x)\nPIL.PngImagePlugin.PngImageFile(x)\nopen(x)\nisinstance(x, y)"
    assert opened(ast.parse(source)) == ["Image.open", "PIL.PngImagePlugin.PngImageFile", "PIL.ImageFile"]
