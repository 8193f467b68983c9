"""The site of documentation is built with warnings as errors, asks no network for anything, and has every module."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.house.source import ROOT, modules


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert not built.returncode, built.stdout + built.stderr
    return folder


def test_every_public_module_has_its_page(site):
    for module in modules("lorgnette"):
        *rooms, name = module.path.removesuffix(".py").split("/")[1:]
        page = site.joinpath("api", *rooms, f"{name}.html")
        assert page.is_file() != name.startswith("_"), module.path


def test_a_page_shows_the_docstrings_and_signatures(site):
    page = (site / "api" / "sample.html").read_text(encoding="utf-8")
    assert 'id="lorgnette.sample.Sample"' in page and "from_messages" in page


def test_pages_load_nothing_from_a_network(site):
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//[^>]*>")
    found = {match[0] for page in site.rglob("*.html") for match in loaded.finditer(page.read_text(encoding="utf-8"))}
    assert not {tag for tag in found if 'rel="canonical"' not in tag}
