"""Starting is quick: `import lorgnette` and `lorgnette --help` take under a second and leave torch alone.

Seconds of the process itself, not of the clock, so that a busy machine does not fail the test.
"""

from __future__ import annotations

import ast
import os
import resource
import statistics
import subprocess
import sys
import tomllib

import pytest

from tests.house.source import ROOT, modules

HELP = """
import atexit, sys
from lorgnette.cli import main
atexit.register(lambda: print("torch imported:", "torch" in sys.modules))
sys.argv = ["lorgnette", "--help"]
main()
"""
IMPORT = "import sys, lorgnette; print('torch imported:', 'torch' in sys.modules)"


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_starting_is_quick(code):
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert "torch imported: False" in done.stdout
    assert statistics.median(seconds) < 1


@pytest.mark.parametrize("program", ["lorgnette", "lorgnette.cli"])
def test_the_version_is_said_by_every_way_in(program):
    done = subprocess.run(
        [sys.executable, "-m", program, "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0 and done.stdout.startswith("lorgnette 0."), done.stderr


def test_no_module_needs_a_unix_to_be_imported():
    """Modules of Unix alone are imported where they are used, behind a look whether they are there."""
    unix = {"fcntl", "grp", "pwd", "resource", "termios", "tty"}
    found = [
        f"{module.path}: {name}"
        for module in modules("lorgnette")
        for node in module.tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
        if name in unix
    ]
    assert found == []


def test_the_command_is_the_one_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"lorgnette": "lorgnette.cli:main"}
