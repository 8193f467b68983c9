"""Build lorgnette's built-in drawings from Debian's package openclipart-svg (8,121 SVG drawings, public domain).

    apt-get download openclipart-svg && dpkg-deb -x openclipart-svg_*.deb openclipart
    python scripts/build_drawings.py openclipart/usr/share/openclipart/svg

It needs cairosvg, numpy, pillow, pyarrow and pyyaml. The same versions of cairo, Pillow and the package give the same
bytes, except that the 175 drawings with text are drawn in the machine's fonts (Debian's fonts-dejavu and
fonts-liberation here). The ledger beside the parquet file records the versions, and what was refused and why. Rendering
takes about six minutes on two cores; `--work` keeps the rendered pictures, so that a second run takes two. Which folder
means which category, what is left out, and how much is kept of large series stands in build_drawings.yaml.
"""

from __future__ import annotations

import argparse
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
import pyarrow.parquet as pq
import yaml
from drawing_names import clean_name, vocabulary
from drawing_pictures import Refused, encode, has_text, ink, pieces, read_metadata, render, render_alone

from lorgnette.data.builtin.colours import basic_colour
from lorgnette.data.builtin.fingerprint import fingerprint, same_picture, similar

PACKAGE = "openclipart-svg 1:0.18+dfsg-19"
SPLITS = {"test": 15, "validation": 5, "train": 80}
"""Shares in percent."""


@dataclass
class Drawing:
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


def _read_one(task: tuple[Path, str, Path | None]) -> tuple[Drawing, bytes]:
    """Read and render one file (in a worker process): the drawing and its WebP bytes, empty where it was refused."""
    root, path, work = task
    svg = (root / path).read_bytes()
    drawing = Drawing(path)
    kept = work / f"{hashlib.sha256(svg).hexdigest()}.png" if work else None
    try:
        drawing.title, drawing.keywords, drawing.creators = read_metadata(svg)
        if kept and kept.exists():
            picture = PIL.Image.open(kept)
        else:
            picture = render_alone(root / path) if has_text(svg) else render(svg, root / path)
            if kept:
                picture.save(kept)
        if ink(np.asarray(picture)) < 0.018:
            raise Refused("nearly invisible")
        return drawing, encode(picture)
    except Refused as reason:
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


def refuse_by_rule(drawings: Sequence[Drawing], rules: dict[str, Any]) -> None:
    """Mark what is left out by hand, set the categories, and keep a share of the large series."""
    for drawing in drawings:
        rule = first_match(drawing.path, rules["refuse"])
        if rule and not drawing.refused:
            drawing.refused = f"by hand: {rule['reason']}"
        found = first_match(drawing.path, rules["categories"])
        drawing.category = found["category"] if found else None


def refuse_duplicates(drawings: Sequence[Drawing]) -> None:
    """Of equal pictures keep one: with a category if any has one, then the first by path."""
    kept: list[Drawing] = []
    for drawing in sorted(_left(drawings), key=lambda d: (d.category is None, d.path)):
        kept.append(drawing)
    prints = np.stack([drawing.print_ for drawing in kept])
    for index, drawing in enumerate(kept):
        for earlier in np.flatnonzero(same_picture(prints[:index], prints[index])):
            if not kept[earlier].refused:
                drawing.refused = "duplicate"
                break


def refuse_over_cap(drawings: Sequence[Drawing], caps: Sequence[dict[str, Any]]) -> None:
    """Of each large series keep a fixed number, by the order of the hashes of the paths."""
    for rule in caps:
        series = [drawing for drawing in _left(drawings) if first_match(drawing.path, [rule])]
        for drawing in sorted(series, key=lambda d: order(d.path))[rule["keep"] :]:
            drawing.refused = "large series of near-identical pictures"


def group(drawings: Sequence[Drawing]) -> None:
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


def assign_splits(drawings: Sequence[Drawing]) -> None:
    """Give each group a split: in the order of the hashes within a category and colour, the split that lacks most.

    So every category and colour has its share of every split. Large groups go to train: they would fill a small split.
    """
    groups: dict[str, list[Drawing]] = {}
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
            """How far the split is behind its share, of the category and of the colour."""
            return sum(kind.total() + size - kind[split] * 100 / SPLITS[split] for kind in kinds)

        split = "train" if len(members) > 12 else max(SPLITS, key=lack)
        for kind in kinds:
            kind[split] += len(members)
        for drawing in members:
            drawing.split = split


def _left(drawings: Iterable[Drawing]) -> list[Drawing]:
    return [drawing for drawing in drawings if not drawing.refused]


# Writing

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("title", pa.string()),
        ("name", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("category", pa.string()),
        ("colour", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("path", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("whole", pa.bool_()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)


def row(drawing: Drawing, image: bytes) -> dict[str, Any]:
    """One row of the parquet file."""
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


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows, sorted by id, as parquet. The same rows and the same pyarrow give the same bytes."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), schema=SCHEMA)
    pq.write_table(
        table, path, compression="zstd", compression_level=9, row_group_size=1024, use_dictionary=["category", "colour"]
    )


def versions() -> dict[str, str]:
    """What the bytes of the pictures depend on."""
    import cairocffi
    import cairosvg

    return {
        "package": PACKAGE,
        "cairosvg": cairosvg.__version__,
        "cairo": cairocffi.cairo_version_string(),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the package's folder usr/share/openclipart/svg")
    parser.add_argument("--out", type=Path, default=Path("lorgnette/data/builtin"), help="where drawings.parquet goes")
    parser.add_argument("--work", type=Path, help="keep rendered pictures here, for a faster second run")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rules = yaml.safe_load((Path(__file__).parent / "build_drawings.yaml").read_text(encoding="utf-8"))
    paths = sorted(path.relative_to(options.root).as_posix() for path in options.root.rglob("*.svg"))
    if not paths:
        parser.error(f"{options.root} holds no SVG file; give the package's folder usr/share/openclipart/svg")
    rows, ledger = build(options.root, paths, rules, options.work, options.jobs)
    ledger["made_with"] = versions()
    write_table(rows, options.out / "drawings.parquet")
    (options.out / "drawings.ledger.json").write_text(json.dumps(ledger, indent=2, sort_keys=True) + "\n")
    print(json.dumps(ledger, indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
