"""Write the numbers and samples of docs/data-card.md, and its pictures, from the drawings and the corpus themselves.

    python -m corpus card

The text of the card stays; what stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow.parquet as pq

from corpus.clipart.build_drawings import LEDGER
from corpus.drawn.colours import BASIC_COLOURS
from corpus.drawn.question_source import QuestionSource
from corpus.drawn.questions import CATEGORIES, KINDS, SCHEDULE
from corpus.parts import PARTS, Part
from lorgnette.data.builtin.drawings import SPLITS, drawings, drawings_file, fit
from lorgnette.data.builtin.shipped import SHIPPED_CORPUS, manifest
from lorgnette.data.sources.scenes import picture_of
from lorgnette.errors import DataError
from lorgnette.inputs.image_io import open_image

ROOT = Path(__file__).parents[1]
CARD = ROOT / "docs/data-card.md"
SHEET = ROOT / "docs/images/drawings.webp"
SCENES = ROOT / "docs/images/scenes.webp"
SHEETS = ROOT / "docs/images/corpus"
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
    """Table of drawings read, kept and refused, by reason."""
    facts = json.loads(LEDGER.read_text(encoding="utf-8"))
    rows = [[reason, count] for reason, count in facts["refused"].items()]
    return table(["reason", "drawings"], [["read", facts["read"]], *rows, ["kept", facts["kept"]]])


def made_with() -> str:
    facts = json.loads(LEDGER.read_text(encoding="utf-8"))["made_with"]
    return "Made with " + ", ".join(f"{name} {version}" for name, version in facts.items() if name != "package") + "."


def size() -> str:
    """Bytes of the file and of the pictures in it."""
    pictures = [len(row.image) for split in SPLITS for row in drawings(split)]
    named = sum(row.name is not None for split in SPLITS for row in drawings(split))
    whole = sum(row.whole for split in SPLITS for row in drawings(split))
    return (
        f"{len(pictures):,} drawings in {sum(drawings_file(split).stat().st_size for split in SPLITS) / 1e6:.1f} MB,"
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
        picture = picture_of(source.row(number * 4 + (1, 2, 3, 3)[number % 4]))
        sheet.paste(picture, (number % 6 * 134 + 3, number // 6 * 134 + 3))
    return sheet


@cache
def head(name: str) -> list[dict[str, Any]]:
    """The first rows of a part, to train on if it has any."""
    split = next(split for split in SPLITS if PARTS[name].counts[split])
    file = pq.ParquetFile(SHIPPED_CORPUS / PARTS[name].file(split))
    return [dict(row) for row in file.read_row_group(0).slice(0, 12).to_pylist()]


def drawn(part: Part) -> bool:
    """Return whether the part's pictures are made of drawings."""
    return ".rendered." not in part.make


def parts() -> str:
    """Rows, bytes and licences of every part."""
    files, lines = manifest()["files"], []
    for part in PARTS.values():
        size = sum(files[part.file(split)]["bytes"] for split in SPLITS if part.counts[split])
        licence = "public domain" if drawn(part) else "Apache-2.0"
        rows = [f"{part.counts[split]:,}" for split in SPLITS]
        lines.append([f"[{part.name}](#{part.name})", *rows, f"{size / 1e3:,.0f}", f"`{part.kind}`", licence])
    return table(["part", *SPLITS, "KB", "kind", "pictures"], lines)


def carried() -> str:
    """Rows and megabytes in the package, and the versions that made them."""
    files = [part.file(split) for part in PARTS.values() for split in SPLITS if part.counts[split]]
    facts = [manifest()["files"][file] for file in files]
    made_with = ", ".join(f"{name} {version}" for name, version in manifest()["made_with"].items())
    size = sum(fact["bytes"] for fact in facts)
    rows = sum(fact["rows"] for fact in facts)
    return f"{rows:,} rows in {size / 1e6:.1f} MB are in the package. Made with {made_with}."


def guesses() -> str:
    """For each benchmark of short answers the score, on its test rows, of guesses learned from its rows to train on."""
    rows = []
    for part in PARTS.values():
        if "answers" in part.columns.names:
            trained, tested = (
                pq.read_table(SHIPPED_CORPUS / part.file(split), columns=["answers", "question_type"]).to_pylist()
                for split in ("train", "test")
            )
            types = len({row["question_type"] for row in tested})
            rows.append([part.name, len(tested), types, f"{_guessed(trained, tested):.1f} %"])
    return table(["benchmark", "questions", "types", "blind"], rows)


def _guessed(trained: Sequence[dict[str, Any]], tested: Sequence[dict[str, Any]]) -> float:
    """VQA accuracy, in per cent, of the most frequent answer of a question's type, or of all where the type is new."""
    seen: dict[str | None, Counter[str]] = {None: Counter()}
    for row in trained:
        for kind in (None, row["question_type"]):
            seen.setdefault(kind, Counter()).update(row["answers"])
    right = 0.0
    for row in tested:
        guess = seen.get(row["question_type"], seen[None]).most_common(1)[0][0]
        right += min(1.0, row["answers"].count(guess) / 3)
    return 100 * right / len(tested)


def samples() -> str:
    """A strip of pictures, and what a row says, for every part."""
    said = []
    for part in PARTS.values():
        lines = [f"### {part.name}", "", f"{part.about[0].upper()}{part.about[1:]}.", ""]
        if any(map(_pictures, head(part.name))):
            lines += [f"![Pictures of {part.name}](images/corpus/{part.name}.webp)", ""]
        said.append("\n".join([*lines, *(f"> {_plain(text)}" + "  " for text in _said(head(part.name)[0]))]))
    return "\n\n".join(said)


def _plain(text: str) -> str:
    """As it stands, on one line of Markdown."""
    text = " ".join(text.split())
    text = text if len(text) <= 400 else text[:400].rsplit(" ", 1)[0] + " …"
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _said(row: dict[str, Any]) -> Iterator[str]:
    """Text of a row, turn by turn."""
    if "alt" in row:
        yield from (f"alt: {row['alt']}", f"caption: {row['caption']}")
    for turn in row.get("texts") or []:
        if turn is None:
            yield "[image]"
        else:
            yield turn if isinstance(turn, str) else f"{turn['user']} → {turn['assistant']}"
    for turn in row.get("messages") or []:
        words = ("[image]" if part["type"] == "image" else part["text"] for part in turn["content"])
        yield f"{turn['role']}: {' '.join(words)}"
    if row.get("caption") and "alt" not in row:
        yield row["caption"]
    if "question" in row:
        yield f"{row['question']} → {', '.join(dict.fromkeys(row['answers']))}"
    yield from row.get("captions") or []
    if "text" in row:
        yield row["text"]


def _pictures(row: dict[str, Any]) -> list[PIL.Image.Image]:
    if "boxes" in row:
        return [picture_of(row)]
    cells = [one for one in [*(row.get("images") or []), row.get("image")] if one]
    return [open_image(one if isinstance(one, bytes) else one["bytes"]) for one in cells]


def strip(part: Part, width: int = 780, height: int = 150) -> PIL.Image.Image | None:
    """Pictures of its first rows beside each other, as many rows as fit; None for a part in text only."""
    sheet, x = PIL.Image.new("RGB", (width, height), (205, 205, 205)), 0
    for row in head(part.name):
        shown = [(picture, fit(*picture.size, 260, height - 6)) for picture in _pictures(row)]
        if not shown or x + sum(side[0] + 4 for _, side in shown) + 2 > width:
            continue
        for picture, side in shown:
            sheet.paste(picture.resize(side, PIL.Image.Resampling.LANCZOS), (x + 3, (height - side[1]) // 2))
            x += side[0] + 4
        x += 6
    return sheet.crop((0, 0, x, height)) if x else None


def written(text: str) -> str:
    """Return the card with every table made again."""
    tables = {
        "size": size,
        "made_with": made_with,
        "ledger": ledger,
        "category": lambda: by("category", CATEGORIES),
        "colour": lambda: by("colour", BASIC_COLOURS),
        "blind": blind,
        "parts": parts,
        "carried": carried,
        "guesses": guesses,
        "samples": samples,
    }
    for name, make in tables.items():
        block = re.compile(rf"(<!-- table: {name} -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)
        body = make()
        if len(found := block.findall(text)) != 1:
            raise DataError(f"{CARD}: expected one `<!-- table: {name} -->`, found {len(found)}")
        before, after = found[0]
        start, end = next(block.finditer(text)).span()
        text = f"{text[:start]}{before}{body}\n{after}{text[end:]}"
    return text


def write_card() -> None:
    """Write the card, and the pictures in it."""
    CARD.write_text(written(CARD.read_text(encoding="utf-8")), encoding="utf-8")
    SHEET.parent.mkdir(exist_ok=True)
    contact_sheet().save(SHEET, quality=70, method=6)
    scenes().save(SCENES, quality=80, method=6)
    SHEETS.mkdir(exist_ok=True)
    for part in PARTS.values():
        if (picture := strip(part)) is not None:
            picture.save(SHEETS / f"{part.name}.webp", quality=60, method=6)
