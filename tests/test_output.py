"""Output: brackets and names of emoji stay text, and no stream is too poor to be written to; bars fit."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from rich.table import Table

from lorgnette.output import advancing, new_console, progress_bar, say
from tests.house.source import modules

ODD = "[bold]x/run [/] :bug: \\[red] {a} bad\udcff"


def test_text_is_printed_as_it_is(capsys):
    console = new_console()
    console.file = io.StringIO()
    say(console, ODD + " " + "long " * 50, style="bold")
    table = Table("name", title="[red]title", show_edge=False)
    table.add_row("[bold]row :bug:")
    console.print(table)
    printed = console.file.getvalue()
    assert printed.startswith(ODD + " long") and printed.count("long") == 50
    assert "[red]title" in printed and "[bold]row :bug:" in printed


PROGRAM = """
import sys
from rich.text import Text
from lorgnette.output import adapt_streams, new_console, print_json, say
adapt_streams()
value = "é \\u25cf \\U0001f41b \\udcff"
print_json({"text": value})
print(value)
say(new_console(), "[bold]" + value)
new_console().print(Text("█░ ▦ 1 × 2 · …"))
print(value, file=sys.stderr)
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_stream_takes_every_text(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    one, two, three, four = done.stdout.decode(encoding).splitlines()
    assert json.loads(one) == {"text": "é \u25cf \U0001f41b \udcff"}
    if encoding == "ascii":
        assert two == r"\xe9 * \U0001f41b \udcff" and four == "#. # 1 x 2 - ..."
    assert three == "[bold]" + two
    assert two.endswith(r"\udcff")


def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path):
    command = [
        sys.executable,
        "-m",
        "lorgnette.cli",
        "export",
        "--model",
        "builtin:vision",
        str(tmp_path / ("x" * 300)),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.startswith("lorgnette: ")


def printed(tree: ast.AST):
    """Calls that give rich text to read as markup."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "print" and isinstance(node.func, ast.Attribute) and isinstance(node.args[0], ast.JoinedStr):
            yield node
        if name == "Console":
            yield node
        if name == "TextColumn" and "markup" not in {keyword.arg for keyword in node.keywords}:
            yield node


@pytest.mark.parametrize("module", modules("lorgnette"), ids=lambda module: module.path)
def test_paths_and_names_are_printed_without_markup(module):
    if module.path != "lorgnette/output.py":
        assert [f"{module.path}:{node.lineno}" for node in printed(module.tree)] == [], "use lorgnette.output"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_counts_rate_and_time_left_are_never_cut(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with progress_bar(console, "rows") as bar:
        task = bar.add_task("interleaved builtin:train/interleaved: counting, and some more", total=33_000)
        for done in (0, 10_000, 20_000, 30_000):
            bar.update(task, completed=done)
            bar.refresh()
            time.sleep(0.01)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    shown = re.split(r"[\r\n]+", plain)
    assert all(len(line.rstrip()) <= width for line in shown)
    last = next(line for line in reversed(shown) if line.strip())
    assert re.fullmatch(r"interleaved.* 30000/33000 [0-9,.]+ rows/s +0:00:0\d *", last), last
    assert ("…" in last) == (width < 120)


def test_a_bar_of_one_line_counts_what_is_told() -> None:
    console = Console(file=io.StringIO(), width=80)
    with advancing(console, "pictures", 5, "pictures") as advance:
        advance()
        advance(4)
    assert re.search(r"pictures +━+ 5/5 ", console.file.getvalue())  # type: ignore[attr-defined]
    with advancing(None, "pictures", 5, "pictures") as advance:
        advance(5)


def test_a_bar_that_is_removed_leaves_nothing() -> None:
    console = Console(file=io.StringIO(), width=80)
    with advancing(console, "pictures", None, "pictures", transient=True) as advance:
        advance()
    assert not console.file.getvalue().strip()  # type: ignore[attr-defined]
