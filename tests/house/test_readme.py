"""README.md and then docs/using.md are walked as a newcomer would: every command and every line of Python runs.

Commands that train do so at a size that takes seconds; what they leave behind is what the later ones use.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from lorgnette.run import Run, find_recipe
from scripts import studies
from scripts.readme_numbers import PAGES, SPAN, fill
from tests.house.source import BLOCK, ROOT
from tests.house.walking import Step, command_line, steps
from tests.tuning.receipts import write_receipts

README = (ROOT / "README.md").read_text(encoding="utf-8")
USING = (ROOT / "docs/using.md").read_text(encoding="utf-8")

SMALL_TUNE = ["--steps", "2", "threads=1", "loader.workers=0"]
SMALL = shlex.split(
    "stages.0.steps=2 stages.1.steps=2 stages.2.steps=2 stages.3.steps=2 "
    " evaluation.questions=8 loader.workers=0 threads=1"
)
"""Overrides added to commands that train."""
FEW_SCENES = ['stages.2.sources=[{kind: scenes, path: "builtin:validation/scenes"}]']
"""Overrides added to commands that name no sources of their own."""

DRY_MAKE = ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", "--dry-run", "--no-print-directory", "-C", str(ROOT)]
"""Prints what make would do, the same inside another make as outside."""

PLAIN_NUMBERS = {
    "Idefics2": "a name",
    "VQAv2": "a benchmark",
    "Python 3.11": "what pyproject.toml requires",
    "Apache-2.0": "a licence",
    "arXiv:2405.02246": "a paper",
}
"""Numbers that no result stands behind, and why."""


def walk() -> list[Step]:
    """Every step of the two pages: a command, or a block of Python."""
    return steps(README + USING)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A newcomer's working folder: the repository's files, and a picture, conversations and receipts of their own."""
    for name in ("docs", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    PIL.Image.new("RGB", (64, 48), "red").save(tmp_path / "mine.png")
    content = [{"type": "image", "path": str(tmp_path / "mine.png")}, {"type": "text", "text": "What colour is it?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "red"}]
    (tmp_path / "mine.jsonl").write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    write_receipts(tmp_path, 24)
    return tmp_path


def argv(step: Step) -> list[str]:
    """Command that runs a step of the pages, which is one of the shell."""
    program, *arguments = shlex.split(step.body)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return lorgnette("demo", *SMALL, *FEW_SCENES) if arguments == ["demo"] else [*DRY_MAKE, *arguments]
    assert program == "lorgnette", f"{step.body}: teach this test how to run it"
    if arguments[0] == "tune":
        return lorgnette(*arguments, *SMALL_TUNE)
    if arguments[0] not in ("train", "demo"):
        return lorgnette(*arguments)
    own = any(one.startswith("stages.2.sources") for one in arguments)
    return lorgnette(*arguments, *SMALL, *([] if own else FEW_SCENES))


def lorgnette(*arguments: str) -> list[str]:
    return ["lorgnette", *arguments]


@pytest.mark.timeout(600)
def test_every_step_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    for step in walk():
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        status = 0
        if step.kind == "python":
            exec(step.body, {"__name__": "__main__"})
        elif (words := argv(step))[0] == "lorgnette":
            status = command_line(words, monkeypatch)
        else:
            print(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        printed, complaints = capsys.readouterr()
        assert status == 0, f"{step.body}\n{printed[-2000:]}\n{complaints[-4000:]}"
        assert printed.strip(), f"{step.body}: prints nothing"
    assert (folder / "runs/demo/report.html").exists()


def test_the_two_commands_are_the_first():
    assert [step.body for step in walk()][:2] == ["make demo", "make test"]


def test_make_demo_runs_the_demo():
    done = subprocess.run([*DRY_MAKE, "demo"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ".venv/bin/lorgnette demo"


def test_make_demo_installs_what_its_recipe_needs():
    stages = Run.load(find_recipe("demo")).stages
    adapted = any(part.mode in ("lora", "dora") for stage in stages for part in (stage.vision, stage.language))
    needed = {*(["lora"] if adapted else []), *(["data"] if any(stage.pack for stage in stages) else [])}
    rule = (ROOT / "Makefile").read_text(encoding="utf-8").partition("$(VENV)/.installed:")[2].partition("\n\n")[0]
    extras = re.findall(r"--editable '?\.(?:\[([\w,]+)\])?'?", rule)
    assert extras and needed <= set(extras[0].split(","))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_the_recorded_one(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text) == text, "run: make numbers"


def test_every_number_has_a_record():
    """In prose and tables; not in code, links and images. Verdicts of studies are made from rows (`test_studies`)."""
    prose = studies.SPAN.sub(" ", README)
    prose = re.sub(r"\]\([^)]*\)|`[^`]*`|<[^>]*>", " ", SPAN.sub(" ", BLOCK.sub(" ", prose)))
    for plain in PLAIN_NUMBERS:
        prose = prose.replace(plain, " ")
    assert re.findall(r".*\d.*", prose) == []


def test_a_span_is_filled_from_its_row(tmp_path):
    rows = [{"note": "a", "speed": 3.14}, {"note": "b", "speed": 1.0}, {"note": "a", "speed": 2.71}]
    (tmp_path / "steps.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "demo.json").write_text('{"kinds": {"colour": {"after": 90.04}}, "seconds": 570}', encoding="utf-8")
    text = (
        "<!-- n:steps?note=a:speed:.1f -->9<!-- /n --> <!-- n:demo:kinds.colour.after:.0f --><!-- /n -->"
        " <!-- n:demo:seconds:minutes -->x<!-- /n -->"
    )
    numbers = re.sub(r"<!--.*?-->", "", fill(text, tmp_path))
    assert numbers == "2.7 90 9.5"


def test_a_superseded_number_says_so(tmp_path):
    scores = {"benchmarks": {"a": {"after": 5}, "b": {"after": 6}}, "superseded": {"a": "a later version may raise it"}}
    (tmp_path / "demo.json").write_text(json.dumps(scores), encoding="utf-8")
    old, new = (f"<!-- n:demo:benchmarks.{name}.after:.0f -->9<!-- /n -->" for name in "ab")
    note = "<!-- superseded -->(*)<!-- /superseded -->"
    plain = re.sub(r"<!--.*?-->", "", fill(f"{old} {new}{note}", tmp_path))
    assert plain == "5\\* 6 (\\* by an earlier version of the metric)"
    assert re.sub(r"<!--.*?-->", "", fill(f"{new}{note}", tmp_path)) == "6"
    with pytest.raises(SystemExit, match="where the note goes"):
        fill(old, tmp_path)


@pytest.mark.parametrize("key", ["demo:nothing:.1f", "nothing:after:.1f", "steps?note=c:speed:.1f"])
def test_a_span_without_a_result_is_refused(tmp_path, key):
    (tmp_path / "demo.json").write_text("{}", encoding="utf-8")
    (tmp_path / "steps.jsonl").write_text('{"note": "a", "speed": 1}', encoding="utf-8")
    with pytest.raises(SystemExit, match="no such result"):
        fill(f"<!-- n:{key} -->1<!-- /n -->", tmp_path)
