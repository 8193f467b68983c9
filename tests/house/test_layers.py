"""A room imports only rooms of smaller layers. The layers are read from the decision that sets them."""

from __future__ import annotations

import re

import pytest

from tests.house.source import ROOT, imports, modules, names, packages

DECISION = ROOT / "docs/decisions/0001-the-house.md"

ACROSS = {
    ("inputs", "lorgnette.model.batch"): "what inputs are packed into",
    ("inputs", "lorgnette.model.configs.connector_config"): "a checkpoint's own files hold settings of a connector",
    (
        "inputs",
        "lorgnette.model.configs.connector_settings",
    ): "a connector says how many visual tokens an image becomes",
    ("report", "lorgnette.inputs.image_io"): "thumbnails are made by the one opener of images",
    ("sample", "lorgnette.images"): "the forms of an image that a sample may hold",
}
"""Imports within a layer, each with its reason."""

THIRD_PARTY = {
    "errors": set(),
    "seeds": set(),
    "untrusted": {"yaml"},
    "files": {"filelock"},
    "leftovers": set(),
    "plugins": set(),
    "output": {"rich"},
    "hints": {"pydantic"},
    "settings": {"pydantic", "yaml"},
    "images": {"PIL", "numpy", "pybase64"},
    "sample": set(),
    "version": set(),
    "model": {"numpy", "pydantic", "torch"},
    "inputs": {"PIL", "jinja2", "numpy", "pydantic", "tokenizers", "torch"},
    "data": {
        "PIL",
        "daft",
        "fastwarc",
        "fsspec",
        "huggingface_hub",
        "numpy",
        "pyarrow",
        "pydantic",
        "pypdfium2",
        "rich",
        "selectolax",
        "torch",
    },
    "report": {"PIL", "jinja2", "numpy"},
    "hub": {"PIL", "huggingface_hub", "safetensors", "torch"},
    "infer": {"numpy", "pydantic", "torch"},
    "eval": {"PIL", "numpy", "pydantic", "rich"},
    "run": {"pydantic"},
    "train": {"peft", "rich", "safetensors", "torch"},
    "demo": {"rich", "torch"},
    "study": {"numpy", "pydantic", "rich", "torch"},
    "serve": {"httpx2", "llguidance", "numpy", "prometheus_client", "pydantic", "starlette", "torch", "uvicorn"},
    "look": {"PIL", "numpy", "torch"},
    "offline": {"pyarrow"},
    "tuning": {"numpy", "rich", "yaml"},
    "cli": {"rich", "typer"},
}
"""Outside packages that each room may import. transformers, timm and datasets are in no list: they are oracles."""

ONE_FILE = {
    ("lorgnette/eval/models/local.py", "torch"): "our own model",
    ("lorgnette/eval/models/transformers_model.py", "torch"): "what a model of transformers is made of",
    (
        "lorgnette/eval/models/transformers_model.py",
        "transformers",
    ): "whose models are measured beside ours, when asked for",
    ("lorgnette/eval/models/lmms_eval.py", "lmms_eval"): "which imports that file, and no other does",
    ("lorgnette/eval/models/lmms_eval.py", "torch"): "devices and types of numbers, as lmms-eval names them",
    (
        "lorgnette/hub/keys.py",
        "tokenizers",
    ): "a component is compared with what the library keeps of it",
    ("lorgnette/serve/ray_app.py", "ray"): "which starts that file, and no other does",
    ("lorgnette/hub/parity.py", "transformers"): "what a certificate compares with, when one is asked for",
}
"""A package that one file may import, and why."""


CORPUS = {"PIL", "cairosvg", "numpy", "pyarrow", "rich", "typer", "yaml"}
"""Packages that `corpus`, which is not installed, may import from outside."""


def layers() -> dict[str, int]:
    """Room -> layer, from the table of the decision."""
    found = {}
    for layer, rooms in re.findall(r"^\| (\d+) \| (.*) \|$", DECISION.read_text(encoding="utf-8"), re.MULTILINE):
        for room in re.findall(r"`([a-z]+)/?`", re.sub(r"\([^)]*\)", "", rooms)):
            found[room] = int(layer)
    return found


def room(name: str) -> str:
    """`lorgnette.model.vlm` is in the room `model`; the package's own root is in none, and `__main__` starts `cli`."""
    found = [*name.split("."), ""][1]
    return "cli" if found == "__main__" else found


MODULES = [module for module in modules("lorgnette") if room(module.name)]


def test_every_room_has_a_layer():
    rooms = {room(module.name) for module in MODULES}
    assert rooms <= layers().keys(), f"give it a layer in {DECISION.relative_to(ROOT)}"
    assert rooms <= THIRD_PARTY.keys(), "say here what it may import from outside"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_room_imports_only_smaller_layers(module):
    here, layer = room(module.name), layers()
    others = {name for name in imports(module) if name in names() and room(name) not in ("", here)}
    wrong = {name for name in others if layer[room(name)] >= layer[here] and (here, name) not in ACROSS}
    assert not wrong, f"{module.path} is in layer {layer[here]} and may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_room_imports_only_the_packages_it_is_allowed(module):
    allowed = THIRD_PARTY[room(module.name)] | {package for path, package in ONE_FILE if path == module.path}
    wrong = packages(module) - allowed
    assert not wrong, f"{module.path} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(("here", "target"), ACROSS, ids=str)
def test_every_allowed_import_is_needed(here, target):
    assert any(room(module.name) == here and target in imports(module) for module in MODULES)


@pytest.mark.parametrize(("path", "package"), ONE_FILE, ids=str)
def test_every_package_of_one_file_is_needed(path, package):
    assert any(module.path == path and package in packages(module) for module in MODULES)


@pytest.mark.parametrize("name", sorted(THIRD_PARTY))
def test_every_allowed_package_is_used(name):
    used = {package for module in MODULES if room(module.name) == name for package in packages(module)}
    assert THIRD_PARTY[name] <= used, "the list allows what the room does not import"


def test_nothing_that_is_installed_imports_the_generator_of_the_corpus():
    wrong = [module.path for module in modules("lorgnette") if any(_is_corpus(name) for name in imports(module))]
    assert not wrong, "the package reads what `corpus` wrote; it never writes it"


@pytest.mark.parametrize("module", modules("corpus"), ids=lambda module: module.path)
def test_the_generator_of_the_corpus_imports_data_and_smaller_layers(module):
    ours = {name for name in imports(module) if name.split(".")[0] == "lorgnette"}
    wrong = {name for name in ours if room(name) != "data" and layers()[room(name)] >= layers()["data"]}
    assert not wrong, f"{module.path} may not import {', '.join(sorted(wrong))}"
    assert packages(module) <= CORPUS


def test_the_generator_uses_every_package_that_it_is_allowed():
    assert {package for module in modules("corpus") for package in packages(module)} == CORPUS


def _is_corpus(name: str) -> bool:
    return name.split(".")[0] == "corpus"
