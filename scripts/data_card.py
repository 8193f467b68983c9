"""Write the numbers of docs/data-card.md and its picture from the built-in drawings themselves.

    python scripts/data_card.py

The text of the card stays; what stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import PIL.Image

from lorgnette.data.builtin import CATEGORIES, KINDS, QuestionSource, drawings
from lorgnette.data.builtin.colours import BASIC_COLOURS
from lorgnette.data.builtin.drawings import FILE, SPLITS, fit
from lorgnette.data.builtin.questions import SCHEDULE

ROOT = Path(__file__).parents[1]
CARD = ROOT / "docs/data-card.md"
SHEET = ROOT / "docs/images/drawings.webp"
SCENES = ROOT / "docs/images/scenes.webp"
TRAINED, EVALUATED = 6000, 1440
"""Questions that the blind guess is learned from, and scored on."""


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def by(key: str, names: Sequence[str]) -> str:
    """Counts of each value of a column, by split."""
    counts = {split: Counter(getattr(row, key) for row in drawings(split)) for split in SPLITS}
    rows: list[list[object]] = []
    for name in (*names, None):
        numbers = [counts[split][name] for split in SPLITS]
        rows.append([name or "(none clear)", *numbers, sum(numbers)])
    sums = [sum(counts[split].values()) for split in SPLITS]
    return table([key, *SPLITS, "all"], [*rows, ["all", *sums, sum(sums)]])


def ledger() -> str:
    """What was read, kept and refused."""
    facts = json.loads(FILE.with_name("drawings.ledger.json").read_text())
    rows = [[reason, count] for reason, count in facts["refused"].items()]
    return table(["reason", "drawings"], [["read", facts["read"]], *rows, ["kept", facts["kept"]]])


def made_with() -> str:
    facts = json.loads(FILE.with_name("drawings.ledger.json").read_text())["made_with"]
    return "Made with " + ", ".join(f"{name} {version}" for name, version in facts.items() if name != "package") + "."


def size() -> str:
    """Bytes of the file and of the pictures in it."""
    pictures = [len(row.image) for split in SPLITS for row in drawings(split)]
    named = sum(row.name is not None for split in SPLITS for row in drawings(split))
    whole = sum(row.whole for split in SPLITS for row in drawings(split))
    return (
        f"{len(pictures):,} drawings in {FILE.stat().st_size / 1e6:.1f} MB,"
        f" {sum(pictures) / len(pictures) / 1e3:.1f} KB each."
        f" {named:,} have a clean name; {whole:,} may stand in scenes of several drawings."
    )


def blind() -> str:
    """For each kind of question the score of the best guess that sees no picture.

    It answers a question of the test split with the most frequent answer that its exact text has in training.
    """
    seen: dict[str, Counter[str]] = {}
    for question, answer, _ in _asked("train", TRAINED):
        seen.setdefault(question, Counter())[answer] += 1
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for question, answer, kind in _asked("test", EVALUATED):
        guess = seen[question].most_common(1)[0][0] if question in seen else None
        total[kind] += 1
        right[kind] += guess == answer
    rows = [
        [kind, ", ".join(dict.fromkeys(SCHEDULE[kind])), f"{100 * right[kind] / total[kind]:.1f} %"] for kind in KINDS
    ]
    return table(["kind", "forms", "blind"], rows)


def _asked(split: str, count: int) -> Iterator[tuple[str, str, str]]:
    source = QuestionSource(split)
    for index in range(count):
        sample = source.describe(index)
        yield sample["question"], sample["answer"], sample["kind"]


def contact_sheet() -> PIL.Image.Image:
    """Twelve drawings of each category, a row each, on white."""
    shown = drawings("train")
    sheet = PIL.Image.new("RGB", (12 * 64, len(CATEGORIES) * 64), "white")
    for y, category in enumerate(CATEGORIES):
        deck = [index for index in shown.by_category[category] if shown[index].whole]
        for x, index in enumerate(deck[:: max(1, len(deck) // 12)][:12]):
            row = shown[index]
            picture = shown.resized(index, *fit(row.width, row.height, 58, 58))
            sheet.paste(picture, (x * 64 + (64 - picture.width) // 2, y * 64 + (64 - picture.height) // 2), picture)
    return sheet


def scenes() -> PIL.Image.Image:
    """Twelve scenes of the test split."""
    source = QuestionSource("test", 7)
    sheet = PIL.Image.new("RGB", (6 * 134, 2 * 134), (205, 205, 205))
    for number in range(12):
        picture = source[number * 4 + (1, 2, 3, 3)[number % 4]].images[0].source
        assert isinstance(picture, PIL.Image.Image)
        sheet.paste(picture, (number % 6 * 134 + 3, number // 6 * 134 + 3))
    return sheet


def written(text: str) -> str:
    """The card with every table made anew."""
    tables = {
        "size": size,
        "made_with": made_with,
        "ledger": ledger,
        "category": lambda: by("category", CATEGORIES),
        "colour": lambda: by("colour", BASIC_COLOURS),
        "blind": blind,
    }
    for name, make in tables.items():
        block = re.compile(rf"(<!-- table: {name} -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
        body = make()
        text, found = block.subn(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
        if found != 1:
            raise SystemExit(f"{CARD}: expected one `<!-- table: {name} -->`, found {found}")
    return text


def main() -> None:
    CARD.write_text(written(CARD.read_text(encoding="utf-8")), encoding="utf-8")
    SHEET.parent.mkdir(exist_ok=True)
    contact_sheet().save(SHEET, quality=70, method=6)
    scenes().save(SCENES, quality=80, method=6)


if __name__ == "__main__":
    main()
