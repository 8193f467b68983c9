"""Makes the drawings from Debian's package openclipart-svg (8,121 SVG drawings, public domain).

    apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb openclipart
    python -m corpus draw openclipart/usr/share/openclipart/svg

It needs cairosvg, numpy, pillow, pyarrow and pyyaml. The same versions of cairo, Pillow and the package give the same
bytes, except that the 175 drawings with text are drawn in the machine's fonts (Debian's fonts-dejavu and
fonts-liberation here). drawings.ledger.json records the versions, and what was refused and why. Rendering takes about
six minutes on two cores; `--work` keeps the rendered pictures, so that a second run takes two. Which folder means which
category, what is left out, and how much is kept of large series stands in build_drawings.yaml.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.features
import PIL.Image
import pyarrow as pa
import yaml

from corpus.clipart.basic_colour import basic_colour
from corpus.clipart.drawing_names import clean_name, vocabulary
from corpus.clipart.drawing_pictures import Unusable, encode, has_text, ink, pieces, read_metadata, render, render_alone
from corpus.clipart.fingerprint import fingerprint, same_picture, similar
from corpus.drawn.compose import shuffled_decks
from corpus.drawn.pairs import rows_of_drawings
from corpus.parts import PARTS
from lorgnette.data.builtin.drawings import Drawing, Drawings
from lorgnette.data.builtin.shipped import SHIPPED_CORPUS
from lorgnette.data.parquet import write_rows
from lorgnette.errors import DataError
from lorgnette.files import write_text

LEDGER = Path(__file__).with_name("drawings.ledger.json")
"""Counts of files read, kept and refused, by reason, and the versions of the tools."""
RULES = Path(__file__).with_name("build_drawings.yaml")
PACKAGE = "openclipart-svg 1:0.18+dfsg-19"
SHARES = {"test": 15, "validation": 5, "train": 80}
"""Shares in percent."""


@dataclass
class Candidate:
    """One drawing on its way into the corpus. `refused` says why it does not get there."""

    path: str
    title: str = ""
    keywords: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    refused: str | None = None
    category: str | None = None
    name: str | None = None
    colour: str | None = None
    rgba: Any = field(default=None, repr=False)
    print_: Any = field(default=None, repr=False)
    group: str = ""
    split: str = ""


# Reading


def _read_one(task: tuple[Path, str, Path | None]) -> tuple[Candidate, bytes]:
    """Read and render one file (in a worker process): the drawing and its WebP bytes, empty where it was refused."""
    root, path, work = task
    svg = (root / path).read_bytes()
    drawing = Candidate(path)
    kept = work / f"{hashlib.sha256(svg).hexdigest()}.png" if work else None
    try:
        drawing.title, drawing.keywords, drawing.creators = read_metadata(svg)
        if kept and kept.exists():
            picture: PIL.Image.Image = PIL.Image.open(kept)
        else:
            picture = render_alone(root / path) if has_text(svg) else render(svg, root / path)
            if kept:
                picture.save(kept)
        if ink(np.asarray(picture)) < 0.018:
            raise Unusable("nearly invisible")
        return drawing, encode(picture)
    except Unusable as reason:
        drawing.refused = str(reason)
        return drawing, b""


# Choosing


def first_match(path: str, rules: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The first rule with a pattern that the path matches."""
    return next(
        (rule for rule in rules if any(fnmatch.fnmatchcase(path, pattern) for pattern in rule["paths"].split())), None
    )


def order(text: str) -> str:
    """A fixed pseudo-random order: the hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_by_rule(drawings: Sequence[Candidate], rules: dict[str, Any]) -> None:
    """Mark what is left out by hand, set the categories, and keep a share of the large series."""
    for drawing in drawings:
        rule = first_match(drawing.path, rules["refuse"])
        if rule and not drawing.refused:
            drawing.refused = f"by hand: {rule['reason']}"
        found = first_match(drawing.path, rules["categories"])
        drawing.category = found["category"] if found else None


def refuse_duplicates(drawings: Sequence[Candidate]) -> None:
    """Of equal pictures keep one: with a category if any has one, then the first by path."""
    kept: list[Candidate] = []
    for drawing in sorted(_left(drawings), key=lambda d: (d.category is None, d.path)):
        kept.append(drawing)
    prints = np.stack([drawing.print_ for drawing in kept])
    for index, drawing in enumerate(kept):
        for earlier in np.flatnonzero(same_picture(prints[:index], prints[index])):
            if not kept[earlier].refused:
                drawing.refused = "duplicate"
                break


def refuse_over_cap(drawings: Sequence[Candidate], caps: Sequence[dict[str, Any]]) -> None:
    """Of each large series keep a fixed number, by the order of the hashes of the paths."""
    for rule in caps:
        series = [drawing for drawing in _left(drawings) if first_match(drawing.path, [rule])]
        for drawing in sorted(series, key=lambda d: order(d.path))[rule["keep"] :]:
            drawing.refused = "large series of near-identical pictures"


def group(drawings: Sequence[Candidate]) -> None:
    """Give drawings that look alike, or whose file names differ by a number only, the same group and so a split."""
    parent = list(range(len(drawings)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_of: dict[str, int] = {}
    for index, drawing in enumerate(drawings):
        stem = series_stem(drawing.path)
        if stem:
            parent[find(index)] = find(first_of.setdefault(stem, index))
    prints = np.stack([drawing.print_ for drawing in drawings])
    for index in range(len(drawings)):
        for earlier in np.flatnonzero(similar(prints[:index], prints[index])):
            parent[find(index)] = find(int(earlier))
    names: dict[int, str] = {}
    for index, drawing in enumerate(drawings):
        drawing.group = names.setdefault(find(index), drawing.path)


SEPARATE = (
    "recreation/games/cards/",
    "computer/icons/flat-theme",
    "computer/icons/lemon-theme",
    "signs_and_symbols/flags/",
)


def series_stem(path: str) -> str:
    """The file name without what numbers its variants: `arrow02_3` and `arrow02_2` give `arrow`. Empty where unsafe."""
    stem = path.rpartition("/")[2].removesuffix(".svg").lower()
    stem = re.sub(r"(_bw|_colour|_black|_outline|_shaded|[\d_.\-]|_[a-z]$|\br$)+", " ", stem).strip()
    return "" if path.startswith(SEPARATE) or len(stem) < 3 else stem


def assign_splits(drawings: Sequence[Candidate]) -> None:
    """Give each group a split: in the order of the hashes within a category and colour, the split that lacks most.

    So every category and colour has its share of every split. Large groups go to train: they would fill a small split.
    """
    groups: dict[str, list[Candidate]] = {}
    for drawing in drawings:
        groups.setdefault(drawing.group, []).append(drawing)

    def stratum(path: str) -> tuple[str, str]:
        first = groups[path][0]
        return (str(first.category), str(first.colour))

    counts: dict[str, Counter[str]] = {}
    for path in sorted(groups, key=lambda path: (stratum(path), order(path))):
        members = groups[path]
        kinds = [counts.setdefault(f"{key} {value}", Counter()) for key, value in zip("ab", stratum(path), strict=True)]

        def lack(split: str, kinds: list[Counter[str]] = kinds, size: int = len(members)) -> float:
            """Shortfall of the split against its share, of the category and of the colour."""
            return sum(kind.total() + size - kind[split] * 100 / SHARES[split] for kind in kinds)

        split = "train" if len(members) > 12 else max(SHARES, key=lack)
        for kind in kinds:
            kind[split] += len(members)
        for drawing in members:
            drawing.split = split


def _left(drawings: Iterable[Candidate]) -> list[Candidate]:
    return [drawing for drawing in drawings if not drawing.refused]


# Writing


def row(drawing: Candidate, image: bytes) -> dict[str, Any]:
    """The fields of `Drawing`, and the split, as a row."""
    digest = hashlib.sha256(image).hexdigest()
    height, width = drawing.rgba.shape[:2]
    return {
        "id": order(drawing.path)[:12],
        "image": image,
        "title": drawing.title,
        "name": drawing.name,
        "keywords": list(drawing.keywords),
        "category": drawing.category,
        "colour": drawing.colour,
        "width": width,
        "height": height,
        "path": drawing.path,
        "licence": "public domain",
        "sha256": digest,
        "whole": ink(drawing.rgba) >= 0.09 and pieces(drawing.rgba) == 1,
        "group": order(drawing.group)[:12],
        "split": drawing.split,
    }


def write_drawings(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write the part `drawings` of each split. The same rows and the same pyarrow give the same bytes."""
    for split in SHARES:
        chosen = [{key: value for key, value in row.items() if key != "split"} for row in rows if row["split"] == split]
        table = Drawings(split, [Drawing(**{**row, "keywords": tuple(row["keywords"])}) for row in chosen])
        part = PARTS["drawings"]
        write_rows(folder / part.file(split), rows_of_drawings(shuffled_decks(table, 0), len(table), 0), part.columns)


def versions() -> dict[str, str]:
    """Versions of the libraries that the bytes of the pictures depend on."""
    import cairosvg

    return {
        "package": PACKAGE,
        "cairosvg": cairosvg.__version__,
        "cairo": cairosvg.surface.cairo.cairo_version_string(),
        "pillow": PIL.__version__,
        "libwebp": str(PIL.features.version("webp")),
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }


def build(
    root: Path, paths: Sequence[str], rules: dict[str, Any], work: Path | None, jobs: int
) -> tuple[list[dict[str, Any]], Any]:
    """All steps: read, refuse, name, group, split. Returns the rows and the ledger."""
    if work:
        work.mkdir(parents=True, exist_ok=True)
    tasks = [(root, path, work) for path in paths]
    if jobs > 1:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            read = pool.map(_read_one, tasks, chunksize=16)
    else:
        read = [_read_one(task) for task in tasks]
    drawings = [drawing for drawing, _ in read]
    images = {drawing.path: image for drawing, image in read}
    refuse_by_rule(drawings, rules)
    for drawing in _left(drawings):
        drawing.rgba = np.asarray(PIL.Image.open(io.BytesIO(images[drawing.path])).convert("RGBA"))
        drawing.print_ = fingerprint(drawing.rgba)
    refuse_duplicates(drawings)
    refuse_over_cap(drawings, rules["caps"])
    known = vocabulary(drawing.keywords for drawing in drawings)
    titles = Counter(drawing.title for drawing in drawings)
    kept = _left(drawings)
    for drawing in kept:
        drawing.colour = basic_colour(drawing.rgba)
        drawing.name = clean_name(drawing.path, drawing.title, drawing.creators, known, titles)
    group(kept)
    assign_splits(kept)
    refused = Counter(drawing.refused for drawing in drawings if drawing.refused)
    ledger = {
        "read": len(drawings),
        "kept": len(kept),
        "refused": dict(sorted(refused.items())),
    }
    return [row(drawing, images[drawing.path]) for drawing in kept], ledger


def remake(root: Path, work: Path | None, jobs: int) -> str:
    """Make the drawings of the package and their ledger, which is returned. Raises: DataError without SVG files."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.svg"))
    if not paths:
        raise DataError(f"{root}: holds no SVG file; give the package's folder usr/share/openclipart/svg")
    rows, ledger = build(root, paths, rules, work, jobs)
    ledger["made_with"] = versions()
    write_drawings(rows, SHIPPED_CORPUS)
    text = json.dumps(ledger, indent=2, sort_keys=True)
    write_text(LEDGER, text + "\n")
    return text
