"""Every how-to page of docs/howto is followed from its top: files are written, commands run, promised lines appear.

A page runs as it stands, in an empty folder, offline; it is written at a size that takes seconds.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lorgnette import plugins
from tests.house.source import ROOT
from tests.house.walking import Step, command_line, steps

PAGES = sorted((ROOT / "docs/howto").glob("*.md"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_step_of_a_page_does_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    plugins.forget()
    for step in steps(page.read_text(encoding="utf-8")):
        if step.kind == "bash":
            status = command_line(shlex.split(step.body), monkeypatch)
            printed = "".join(capsys.readouterr())
            assert bool(status) == step.fails, f"{step.body}: exit status {status}\n{printed}"
            assert step.missing(printed) == [], f"{step.body}\n{printed}"
        elif step.kind == "python":
            exec(step.body, {"__name__": "__main__"})
            assert step.missing("".join(capsys.readouterr())) == []
        else:
            Path(step.kind).parent.mkdir(parents=True, exist_ok=True)
            Path(step.kind).write_text(step.body, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_output_and_refusals(page):
    found = steps(page.read_text(encoding="utf-8"))
    assert any(step.output and not step.fails for step in found)
    assert any(step.fails for step in found)


def test_promised_lines_are_looked_for_in_their_order():
    step = Step("bash", "lorgnette presets", ("a  1", "b ... c"))
    assert step.missing("x\na 1\nb something c\n") == []
    assert step.missing("b something c\na 1\n") == ["b ... c"]
    assert step.missing("") == ["a 1", "b ... c"] and not step.fails


def test_a_page_is_read_block_by_block():
    page = (
        "```yaml\n# a.yaml\nname: a\n```\n```bash\nlorgnette presets  # all\n```\n\n```text\nmicro ...\n```\n"
        "```console\n$ lorgnette show \\\n  nowhere\nlorgnette: no such folder\n$ lorgnette presets\n```\n"
    )
    file, first, second, third = steps(page)
    assert (file.kind, file.body) == ("a.yaml", "# a.yaml\nname: a\n")
    assert (first.body, first.output) == ("lorgnette presets", ("micro ...",))
    assert second.fails and shlex.split(second.body) == ["lorgnette", "show", "nowhere"]
    assert not third.output
