"""The model's parts are known by protocols: nobody outside their file names a field or a class of one kind."""

from __future__ import annotations

import ast
import re

import pytest

from lorgnette.model.vlm import VLM
from tests.house.source import modules

SOURCES = {module.path: module for module in modules("lorgnette")}
FIELDS = re.compile(r"\bconnector\.(latents|projection|depth|side)")
"""Fields that one kind of connector has."""
AT_HOME = {
    "Perceiver": {"lorgnette/model/connectors/__init__.py"},
    "PixelShuffle": {"lorgnette/model/connectors/__init__.py"},
    "ViT": {"lorgnette/model/vision.py"},
    "Autoregressive": {"lorgnette/model/fusion.py"},
    "CrossAttention": {"lorgnette/model/fusion.py"},
    "PixelShuffleConfig": {
        "lorgnette/model/configs/connector_config.py",
        "lorgnette/model/connectors/__init__.py",
        "lorgnette/model/connectors/projections.py",
        "lorgnette/hub/weight_map.py",
        "lorgnette/hub/formats/idefics3.py",
    },
}
"""Files that may name a class of one kind: its own, its settings, the table of names, and a form that has this kind."""


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for path in SOURCES
        if path != "lorgnette/hub/weight_map.py" and not path.startswith("lorgnette/model/connectors/")
    ),
)
def test_no_field_of_one_kind_is_read_elsewhere(path):
    read = [ast.unparse(node) for node in SOURCES[path].nodes if isinstance(node, ast.Attribute)]
    assert not [name for name in read if FIELDS.search(name)]


@pytest.mark.parametrize("name", AT_HOME)
def test_a_class_of_one_kind_is_named_in_its_file_alone(name):
    naming = {path for path, module in SOURCES.items() if name in {getattr(n, "id", "") for n in module.nodes}}
    assert naming == AT_HOME[name]


def test_the_forward_pass_fits_on_a_screen():
    source = SOURCES["lorgnette/model/vlm.py"]
    [vlm] = [node for node in source.tree.body if getattr(node, "name", "") == VLM.__name__]
    [forward] = [node for node in vlm.body if getattr(node, "name", "") == "forward"]
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(forward)) <= 15
    assert len(source.text.splitlines()) <= 170
