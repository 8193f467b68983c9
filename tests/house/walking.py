"""Steps of the documentation, as its pages write them: commands, Python, files, and the output that they promise.

- `bash`: a command on each line; `console`: commands behind `$ `, each with its output below;
- `text` right after a block: output of its last command;
- `yaml`, or `python`, whose first line is `# name.yaml` (`# folder/name.py`): a file; other Python is run.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lorgnette.cli import main
from tests.house.source import BLOCK

FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml))\n")


@dataclass(frozen=True)
class Step:
    """One step of a page."""

    kind: str
    """`bash`, `python`, or the name of a file to write."""
    body: str
    output: tuple[str, ...] = ()
    """Lines that the step prints, in this order and with others between them; `...` stands for any characters."""

    @property
    def fails(self) -> bool:
        """Return whether the page shows an error of the command line."""
        return any(line.startswith("lorgnette: ") for line in self.output)

    def missing(self, printed: str) -> list[str]:
        """Promised lines that are not among the printed ones, in this order; spaces count as one."""
        lines = iter([" ".join(line.split()) for line in printed.splitlines()])
        patterns = [" ".join(line.split()) for line in self.output]
        return [
            pattern
            for pattern in patterns
            if not any(re.fullmatch(re.escape(pattern).replace(r"\.\.\.", ".*"), line) for line in lines)
        ]


def steps(page: str) -> list[Step]:
    """Every step of a page, in order."""
    found: list[Step] = []
    for language, body in BLOCK.findall(page):
        file = FILE.match(body)
        if language in ("python", "yaml") and file:
            found.append(Step(file[1], body))
        elif language == "python":
            found.append(Step("python", body))
        elif language == "bash":
            lines = [line.split("  #")[0].strip() for line in body.replace("\\\n", " ").splitlines()]
            found += [Step("bash", line) for line in lines if line and not line.startswith("#")]
        elif language == "console":
            found += _dialogue(body)
        elif language == "text":
            found[-1] = replace(found[-1], output=tuple(body.splitlines()))
    return found


def _dialogue(body: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, *output = part.replace("\\\n", " ").splitlines()
        yield Step("bash", command, tuple(line for line in output if line.strip()))


def command_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of a command, run in this process: importing torch for each would take most of the time."""
    if words[0] == "PYTHONPATH=.":
        monkeypatch.syspath_prepend(str(Path.cwd()))
        words = words[1:]
    assert words[0] == "lorgnette", f"{shlex.join(words)}: teach this test how to run it"
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
