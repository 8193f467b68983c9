"""Dependencies: each declared, each with its reason, and each one's exact version in the constraints file."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.source import ROOT, modules, packages

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
DECLARED = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
OPTIONAL = [Requirement(text) for extra in EXTRAS.values() for text in extra if not text.startswith("lorgnette[")]
USED_EXTRAS = [*EXTRAS["data"], *EXTRAS["lora"], *EXTRAS["serve"], *EXTRAS["verify"], *EXTRAS["build-data"]]
USED_EXTRAS += [text for text in EXTRAS["ray"] if not text.startswith("lorgnette[")]
PINS = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]


HOSTS = {"lmms-eval": "imports the one file that imports it, by an entry point; nothing of ours needs it"}
"""Packages that the package imports and does not depend on, and why."""

LOADED = {"httptools": "uvicorn imports it, when it is asked for by name"}
"""Packages that are declared though nothing of ours imports them, and why."""


def pinned() -> set[str]:
    return {canonicalize_name(line.split("==")[0]) for line in PINS}


def brought_along(roots: list[Requirement]) -> set[str]:
    """The names of all installed packages that the roots need, directly or through others."""
    found: set[str] = set()
    todo = [(root.name, frozenset(root.extras)) for root in roots]
    while todo:
        name, extras = todo.pop()
        if (name := canonicalize_name(name)) in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform, or an extra that is not installed here
        found.add(name)
        for requirement in map(Requirement, requirements):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


@pytest.mark.parametrize("line", PINS)
def test_a_constraint_is_one_exact_version(line):
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), "write name==version and nothing else"


def test_everything_installed_is_pinned():
    roots = [*DECLARED, *OPTIONAL, *map(Requirement, PROJECT["build-system"]["requires"])]
    assert {canonicalize_name(root.name) for root in roots} <= pinned()
    assert brought_along(roots) <= pinned(), "run: make constraints"


def test_nothing_pinned_belongs_to_one_kind_of_device():
    assert not [name for name in pinned() if name.startswith(("nvidia", "triton", "torchvision"))]


def test_what_is_declared_is_what_the_packages_import():
    homes = importlib.metadata.packages_distributions()
    imported = {package for module in modules("lorgnette", "corpus") for package in packages(module)}
    used = {canonicalize_name(home) for package in imported for home in homes.get(package, [package])}
    declared = {canonicalize_name(requirement.name) for requirement in [*DECLARED, *map(Requirement, USED_EXTRAS)]}
    assert used | LOADED.keys() == declared | HOSTS.keys()


@pytest.mark.parametrize("requirement", [*DECLARED, *OPTIONAL], ids=lambda requirement: requirement.name)
def test_every_dependency_has_its_reason(requirement):
    reasons = (ROOT / "docs/decisions/0002-dependencies.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{re.escape(requirement.name)}` \| .{{10,}} \|$", reasons, re.MULTILINE)


def test_the_version_is_one():
    init = (ROOT / "lorgnette/__init__.py").read_text(encoding="utf-8")
    version = PROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in init
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
