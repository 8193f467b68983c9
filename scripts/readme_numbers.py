"""Fill the numbers in README.md and docs/backbones.md from recorded results, so that none is ever typed.

A number stands between two comments, the first of which names its result:

    <!-- n:demo:kinds.colour.after:.0f -->72<!-- /n -->       from benchmarks/results/demo.json
    <!-- n:model_step?note=quiet:speedup:.1f -->4.1<!-- /n -->  from model_step.jsonl, the newest row with that note

A number that its row calls `superseded` gets an asterisk, which <!-- superseded --><!-- /superseded --> explains.

usage: python scripts/readme_numbers.py [RUN]
RUN: the folder of a finished demo, such as runs/demo; its results.json is recorded in benchmarks/results first.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "backbones.md")
SPAN = re.compile(
    r"(<!-- n:(?P<file>[\w.-]+)(?:\?(?P<where>[^: ]+))?:(?P<key>[\w.-]+):(?P<form>\S+) -->).*?(<!-- /n -->)"
)
NOTE = re.compile(r"(<!-- superseded -->).*?(<!-- /superseded -->)", re.DOTALL)
MARK, MEANING = "\\*", " (\\* by an earlier version of the metric)"


def fill(text: str, results: Path = RESULTS) -> str:
    """The text with every span filled, and a note where a number is superseded.

    Raises SystemExit naming a span whose result cannot be found, or that there is no place for the note.
    """
    text = SPAN.sub(lambda span: span[1] + _number(span, results) + span[6], text)
    marked = any(span[0].endswith(f"{MARK}{span[6]}") for span in SPAN.finditer(text))
    if marked and not NOTE.search(text):
        raise SystemExit("a number is superseded; say where the note goes: <!-- superseded --><!-- /superseded -->")
    return NOTE.sub(lambda note: note[1] + MEANING * marked + note[2], text)


def _number(span: re.Match[str], results: Path) -> str:
    try:
        row = value = _row(span["file"], span["where"], results)
        for key in span["key"].split("."):
            value = value[key]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{span[1]}: no such result in {results} ({error!r})") from None
    old = set(row.get("superseded", ())) & set(span["key"].split("."))
    number = f"{value / 60:.1f}" if span["form"] == "minutes" else format(value, span["form"])
    return number + MARK * bool(old)


def _row(file: str, where: str | None, results: Path) -> Any:
    """The one row of a .json file, or the newest row of a .jsonl file that has the wanted values (`key=value&...`)."""
    if (single := results / f"{file}.json").exists():
        return json.loads(single.read_text(encoding="utf-8"))
    wanted = dict(pair.split("=", 1) for pair in (where or "").split("&") if pair)
    lines = (results / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    found = [row for row in rows if all(str(row.get(key)) == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"no row has {where}")
    return found[-1]


def main(arguments: list[str]) -> None:
    for run in arguments:
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(run) / "results.json", RESULTS / "demo.json")
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
