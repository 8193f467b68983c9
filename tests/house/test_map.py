"""Documents name what is there: the tree of the README each room, and every path and module in their prose exists."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache

import pytest

from tests.house.source import BLOCK, OURS, ROOT, modules, texts, tracked_files

README = texts()["README.md"]
HOWTO = tuple(path for path in texts() if path.startswith("docs/howto/"))
GUIDES = ("README.md", "CONTRIBUTING.md", "docs/index.md", "docs/tour.md", "docs/using.md", *HOWTO)
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.{},*-]+(/[\w.{},*-]+)*/?")
ENDINGS = (".py", ".md", ".yaml", ".yml", ".txt", ".json", ".jsonl", ".toml", ".parquet", ".svg")

WRITTEN = {
    ".venv": "what make makes",
    "runs/demo": "what the demo leaves",
    "rejected.jsonl": "what preparing a source leaves",
    "runs/mine/recipe.yaml": "what `lorgnette tune` writes",
    "runs/tuned/adapters/": "what the how-to page on fine-tuning makes",
    "best/": "what training with evaluations leaves in a run's folder",
    "curves.svg": "what `lorgnette train --plot` draws",
    "build/site": "what `make docs` writes",
}
"""Paths that a command makes, and which."""


def tree() -> dict[str, str]:
    """The README's tree: each path relative to the repository -> its words."""
    (block,) = (body for _, body in BLOCK.findall(README) if body.startswith("lorgnette/"))
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        listed, _, words = line.strip().partition("  ")
        folders = folders[: indent // 2]
        for name in listed.split():
            found["".join([*folders, name])] = words.strip()
        folders.append(listed)
    return found


def rooms() -> set[str]:
    """Folders and files directly in the package, and folders in those folders, that hold Python."""
    paths = [module.path.split("/") for module in modules("lorgnette")]
    files = {"/".join(parts) for parts in paths if len(parts) == 2 and parts[1] != "__init__.py"}
    return files | {"/".join(parts[:depth]) + "/" for parts in paths for depth in (1, 2, 3) if len(parts) > depth}


def test_the_tree_names_every_room_and_no_other():
    named = {path for path in tree() if path.startswith("lorgnette/")}
    assert rooms() - named == set(), "the README's tree lacks rooms"
    assert named - rooms() == set(), "the README's tree names what is not there"


def test_everything_else_in_the_tree_is_there_and_has_words():
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    assert [path for path, words in tree().items() if path.endswith("/") and not words] == []


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 90


@cache
def listed() -> tuple[frozenset[str], frozenset[str]]:
    """Every file and every folder of the repository."""
    files = frozenset(path.relative_to(ROOT).as_posix() for path in tracked_files())
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    return files, frozenset(folders)


def exists(name: str) -> bool:
    """Return whether the repository has a path, relative to its root, the package, or any room."""
    files, folders = listed()
    wanted, among = name.rstrip("/"), folders if name.endswith("/") else files | folders
    return any(path == wanted or path.endswith(f"/{wanted}") for path in among)


def is_there(name: str) -> bool:
    """Return whether `lorgnette.a.b` is a module, which may need an extra to be imported, or a name in one."""
    parts = name.split(".")
    if (ROOT / "/".join(parts)).with_suffix(".py").is_file():
        return True
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("guide", GUIDES)
def test_every_path_named_in_a_guide_exists(guide):
    named = CODE.findall(BLOCK.sub("", texts()[guide]))
    paths = {name for name in named if PATH.fullmatch(name) and (name.endswith("/") or name.endswith(ENDINGS))}
    assert {path for path in paths if not exists(path)} - WRITTEN.keys() == set()


@pytest.mark.parametrize("guide", GUIDES)
def test_every_module_named_in_a_guide_exists(guide):
    text = texts()[guide]
    named = set(re.findall(r"\b(?:lorgnette|corpus)(?:\.[A-Za-z_]\w*)+", text)) - {"lorgnette.cli"}
    files = {name for name in named if name.endswith((".py", ".md", ".service"))}
    assert {name for name in named - files if not is_there(name)} == set()


@pytest.mark.parametrize("guide", GUIDES)
def test_every_class_named_in_a_guide_is_defined(guide):
    named = CODE.findall(BLOCK.sub("", texts()[guide]))
    classes = {name for name in named if re.fullmatch(r"(?:[A-Z]+[a-z]+)+[A-Z]*", name)}
    defined = {node.name for module in modules(*OURS) for node in module.tree.body if isinstance(node, ast.ClassDef)}
    assert classes - defined == set()


@pytest.mark.parametrize("guide", [guide for guide in GUIDES if guide not in ("README.md", "docs/using.md", *HOWTO)])
def test_python_in_a_guide_runs(guide):
    """That of the others runs in `test_readme` and `test_howto`, where there are models and files."""
    blocks = [body for language, body in BLOCK.findall(texts()[guide]) if language == "python"]
    assert all(exec(block, {}) is None for block in blocks)


def test_a_path_that_is_not_there_is_found_out():
    assert exists("lorgnette/model/") and exists("vlm.py") and exists("sources/table.py")
    assert not exists("lorgnette/models/") and not exists("lm.py")
    assert is_there("lorgnette.errors.DataError") and not is_there("lorgnette.errors.Nothing")
