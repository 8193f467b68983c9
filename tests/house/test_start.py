"""Starting is quick: help, and the refusal of a wrong argument, leave torch alone; torch._dynamo is for GPUs.

Seconds are those of the process itself, not of the clock, so that a busy machine does not fail the test.
"""

from __future__ import annotations

import ast
import json
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


REFUSED = {
    "generate --prompt x --model nowhere": "nowhere: no such folder",
    "generate --prompt x --model builtin:vision --temperature=-1": "generate: temperature",
    "generate --prompt x --model builtin:vision --temprature 1": "No such option: --temprature",
    "generate --prompt x --model builtin:vision --adapter nowhere": "nowhere: no such folder",
    "chat --model nowhere": "nowhere: no such folder",
    "show nowhere": "nowhere: no such recipe",
    "export --model nowhere out": "nowhere: no such folder",
    "import nowhere out": "nowhere: no such folder",
    "demo --recipe dmeo": "dmeo: no such recipe",
    "train mirco": "mirco: no such recipe",
    "train micro stages.chat.learning_rate=1": "no such setting",
    "train micro init.vision=nowhere": "nowhere: no such folder",
    "train micro stages.0.sources.0.path=nowhere.parquet": "nowhere.parquet: no such file",
    "tune nowhere mine.jsonl": "nowhere: no such folder",
    "tune builtin:vision nowhere.jsonl": "nowhere.jsonl: no such file",
    "tune builtin:vision nowhere.jsonl --metric anlz": "metric 'anlz' is unknown",
    "eval --model nowhere": "nowhere: no such folder",
    "eval --model builtin:vision --tasks scenevqa": "no task is called 'scenevqa'",
    "eval --model builtin:vision --tasks nowhere.jsonl": "nowhere.jsonl: no such file",
    "eval --model builtin:vision --tasks pyproject.toml": "its kind is not clear",
    "eval --model transformers:nowhere": "nowhere: no such folder",
    "eval --model transformers:owner/nowhere": "owner/nowhere: no such folder here",
    "eval --model transformers:": "names no model",
    "eval --model builtin:vision --device gpu": "--device gpu",
    "eval doctor --model nowhere": "nowhere: no such folder",
    "data inspect mirco": "mirco: no such recipe",
    "data prepare --kind chat nowhere.jsonl --tokenizer lorgnette/hub/shipped/language": "nowhere.jsonl: no such file",
    "serve nowhere": "nowhere: no such folder",
    "study run t33": "t33: no such study",
}
"""Command with a wrong argument -> the beginning of what is said. None of them imports torch."""

SAY = """
import contextlib, io, json, sys
from lorgnette.cli import main
for command in json.loads(sys.argv.pop()):
    said = io.StringIO()
    sys.argv = ["lorgnette", *command.split()]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    print(json.dumps([command, status, said.getvalue(), "torch" in sys.modules]))
"""
LOAD = """
import sys, torch, lorgnette
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
lorgnette.load, lorgnette.generate
with torch.device("meta"):  # as a checkpoint is opened
    VLM(VLMConfig())
print([name for name in ("torch._dynamo", "sympy", "transformers", "pyarrow") if name in sys.modules])
"""


def test_a_wrong_argument_is_refused_before_torch_is_imported():
    """All in one process, in turn: the first to import torch would be seen."""
    done = subprocess.run(
        [sys.executable, "-c", SAY, json.dumps(list(REFUSED))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [command for command, *_ in found] == list(REFUSED)
    for command, status, said, imported in found:
        assert status and REFUSED[command] in said, (command, said)
        assert not imported, command


def test_to_refuse_a_model_takes_no_room_that_reads_data():
    code = (
        "import sys\nfrom lorgnette.cli.arguments import find_model\ntry:\n    find_model('nowhere')\n"
        "except Exception as error:\n    print(error)\n"
        "print(sorted(name for name in sys.modules if name in ('torch', 'pyarrow', 'lorgnette.data', 'lorgnette.run')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "nowhere: no such folder" in done.stdout and done.stdout.endswith("[]\n"), done.stdout + done.stderr


def test_a_processor_without_a_gpu_imports_no_compiler():
    done = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout == "[]\n", done.stderr


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


WITHOUT_UNIX = """
import asyncio, importlib, pkgutil, sys
import filelock, torch, uvicorn, lorgnette  # other libraries have their own ways on Windows
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
for found in pkgutil.walk_packages(lorgnette.__path__, "lorgnette."):
    if not found.name.endswith(("__main__", ".lmms_eval", ".ray_app")):  # these need an extra of their own
        importlib.import_module(found.name)
print(sum(name.startswith("lorgnette.") for name in sys.modules))
"""


def test_every_module_is_imported_where_there_is_no_unix():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300


def test_the_command_is_the_one_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"lorgnette": "lorgnette.cli:main"}
