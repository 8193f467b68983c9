"""The builder of the drawings: what it refuses, and that it gives the same bytes twice.

Pictures are put where it keeps rendered ones, so that these tests need no system library for SVG.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pyarrow.parquet as pq
import pytest

from corpus import data_card as card
from corpus.clipart import build_drawings
from corpus.parts import PARTS

RULES: dict[str, Any] = {
    "refuse": [{"reason": "a logo", "paths": "logos/*"}],
    "categories": [{"category": "animal", "paths": "animals/*"}, {"category": None, "paths": "*"}],
    "caps": [{"paths": "series/*", "keep": 2}],
}
PUBLIC = "http://web.resource.org/cc/PublicDomain"


@pytest.fixture
def script() -> Any:
    return build_drawings


def svg(title: str, licence: str = PUBLIC, keywords: tuple[str, ...] = ("mammal",), shapes: str = "") -> bytes:
    words = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="100" height="80" viewBox="0 0 100 80"><metadata>
      <rdf:RDF xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/"
        xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><cc:Work rdf:about=""><dc:title>{title}</dc:title>
        <dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject>
        <dc:creator><cc:Agent><dc:title>Ann Author</dc:title></cc:Agent></dc:creator>
        <cc:license rdf:resource="{licence}"/></cc:Work></rdf:RDF></metadata>{shapes}</svg>""".encode()


class Package:
    """A folder of SVG files and their pictures, as the package and the script's working folder hold them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.work = folder / "svg", folder / "work"
        self.work.mkdir()

    def add(self, path: str, content: bytes, picture: PIL.Image.Image | None = None) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if picture is not None:
            picture.save(self.work / f"{hashlib.sha256(content).hexdigest()}.png")

    def build(self, script: Any, out: Path) -> tuple[list[dict[str, Any]], Any]:
        paths = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*.svg"))
        rows, ledger = script.build(self.root, paths, RULES, self.work, 1)
        script.write_drawings(rows, out)
        return rows, ledger


def blob(colour: tuple[int, int, int], seed: int) -> PIL.Image.Image:
    """A picture that looks like no other seed's: a polygon with random corners."""
    rng = np.random.default_rng(seed)
    picture = PIL.Image.new("RGBA", (160, 120), (0, 0, 0, 0))
    corners = [(int(x), int(y)) for x, y in rng.integers(0, (160, 120), size=(5, 2))]
    PIL.ImageDraw.Draw(picture).polygon(corners, fill=(*colour, 255))
    return picture


@pytest.fixture
def package(tmp_path: Path) -> Package:
    package = Package(tmp_path)
    package.add("animals/red_cow_ann_author_01.svg", svg("Red Cow"), blob((255, 0, 0), 1))
    package.add("animals/copy_of_cow_01.svg", svg("Copy"), blob((255, 0, 0), 1))
    package.add("animals/faint_01.svg", svg("Faint"), PIL.Image.new("RGBA", (160, 90), (250, 250, 250, 40)))
    package.add("animals/by_sa_01.svg", svg("Not ours", licence="http://creativecommons.org/licenses/by-sa/2.0/"))
    package.add("animals/none_01.svg", svg("No licence", licence=""))
    package.add("animals/broken.svg", b"<svg><unclosed></svg>")
    package.add("animals/bomb.svg", b'<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>')
    package.add("logos/ours_01.svg", svg("Logo"), blob((0, 0, 255), 2))
    for number in range(5):
        package.add(f"series/part_{number}.svg", svg(f"Part {number}"), blob((0, 128, 0), 10 + number))
    return package


def test_what_is_refused_is_counted_and_the_counts_add_up(script: Any, package: Package, tmp_path: Path) -> None:
    rows, ledger = package.build(script, tmp_path / "a")
    assert ledger["refused"] == {
        "by hand: a logo": 1,
        "duplicate": 1,
        "large series of near-identical pictures": 3,
        "licence: not stated to be the public domain in its RDF": 2,
        "nearly invisible": 1,
        "unreadable: defines XML entities": 1,
        "unreadable: not well-formed XML": 1,
    }
    assert ledger["kept"] + sum(ledger["refused"].values()) == ledger["read"] == 13
    cow = next(row for row in rows if row["path"].startswith("animals/"))
    assert (cow["category"], cow["colour"], cow["keywords"]) == ("animal", "red", ["mammal"])
    assert cow["name"] in ("red cow", "copy of cow", "copy")


def test_the_same_package_gives_the_same_bytes(script: Any, package: Package, tmp_path: Path) -> None:
    package.build(script, tmp_path / "a")
    package.build(script, tmp_path / "b")
    ids = []
    for split in script.SHARES:
        file = PARTS["drawings"].file(split)
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        table = pq.read_table(tmp_path / "a" / file)
        assert table.schema.equals(PARTS["drawings"].columns)
        ids += table["id"].to_pylist()
    assert len(ids) == len(set(ids)) == 3


def test_variants_of_one_drawing_share_a_group(script: Any, package: Package, tmp_path: Path) -> None:
    rows, _ = package.build(script, tmp_path / "a")
    assert len({row["group"] for row in rows if row["path"].startswith("series/")}) == 1
    assert (
        script.series_stem("shapes/arrows/arrow02_3.svg")
        == script.series_stem("shapes/arrows/arrow02_2.svg")
        == "arrow"
    )
    assert script.series_stem("food/fruit/pear_simple_bw.svg") == script.series_stem("food/fruit/pear_simple.svg")
    assert script.series_stem("recreation/games/cards/white/white_s_5.svg") == ""


def test_a_group_lies_in_one_split_and_each_category_in_all(script: Any) -> None:
    drawings = [
        script.Candidate(f"animals/{number}.svg", category="animal", colour="red", group=f"animals/{number // 2}")
        for number in range(200)
    ]
    script.assign_splits(drawings)
    for one, two in zip(drawings[::2], drawings[1::2], strict=True):
        assert one.split == two.split
    shares = {split: sum(drawing.split == split for drawing in drawings) / 200 for split in script.SHARES}
    assert shares == {split: pytest.approx(share / 100, abs=0.02) for split, share in script.SHARES.items()}


@pytest.mark.parametrize(
    ("path", "title", "name"),
    [
        ("animals/fox_ann_author_01.svg", "Fox", "fox"),
        ("animals/grey_fox_ann_auth_01.svg", "Many", "grey fox"),
        ("signs_and_symbols/flags/europe/sweden.svg", "sweden", "flag of sweden"),
        ("signs_and_symbols/flags/_sweden__richard_01.svg", "x", None),
        ("recreation/games/cards/white/white_s_q.svg", "card", "queen of spades"),
        ("animals/gatto_01.svg", "Gatto nero", None),
        ("shapes/arrows/arrow02_3.svg", "Clipart by Nicu Buculei - arrow08_4", "arrow"),
    ],
)
def test_names_are_clean_or_absent(script: Any, path: str, title: str, name: str | None) -> None:
    from collections import Counter

    titles = Counter({"Many": 50})
    assert script.clean_name(path, title, ("Ann Author",), {"fox"}, titles) == name


def test_pieces_are_counted_as_people_would(script: Any) -> None:
    picture = PIL.Image.new("RGBA", (160, 80), (0, 0, 0, 0))
    pen = PIL.ImageDraw.Draw(picture)
    pen.ellipse((10, 10, 60, 60), fill=(0, 0, 0, 255))
    assert script.pieces(np.asarray(picture)) == 1
    pen.ellipse((100, 10, 150, 60), fill=(200, 0, 0, 255))
    assert script.pieces(np.asarray(picture)) == 2
    pen.rectangle((30, 30, 120, 40), fill=(0, 0, 0, 255))
    assert script.pieces(np.asarray(picture)) == 1


def test_the_data_card_is_up_to_date() -> None:
    text = card.CARD.read_text(encoding="utf-8")
    assert card.written(text) == text, "run: python -m corpus card"
    for picture in (card.SHEET, card.SCENES):
        assert PIL.Image.open(picture).size[0] > 600
