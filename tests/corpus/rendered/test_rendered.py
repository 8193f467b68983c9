"""The makers of rendered text: pure, disjoint by split, within their pictures, and of the schemas of the corpus."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import PIL.Image
import pyarrow as pa
import pytest

from corpus.parts import ANSWERS, DOCUMENTS, PARTS
from corpus.rendered import description, letters, transcription
from corpus.rendered.benchmarks import DOCUMENTS as PAGES
from corpus.rendered.fonts import FACES, FOLDER, HANDS, Hand, Print
from corpus.rendered.food_chains import food_web
from corpus.rendered.lot import Lot, plain, split_of
from corpus.rendered.noise import MOST_COLOURS, coloured, greys, scanned
from corpus.rendered.paper import LONGEST, Paper, Sheet, wrap
from corpus.rendered.signs import KINDS
from lorgnette.data.builtin.drawings import SPLITS
from lorgnette.errors import DataError
from tests.house.source import ROOT

OURS = [part for part in PARTS.values() if ".rendered." in part.make]
NAMES = [part.name for part in OURS]
SHEETS: dict[str, Callable[[Lot], Sheet]] = {
    **{f"page {number}": make for number, make in enumerate(PAGES)},
    **{f"sign {make.__name__}": make for make in KINDS},
    **{f"transcription {number}": make for number, make in enumerate(transcription.KINDS)},
    "printed story": lambda lot: letters.story(lot, by_hand=False),
    "written story": lambda lot: letters.story(lot, by_hand=True),
    "food web": food_web,
}
"""Everything that is drawn."""


def made(name: str, split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    return list(PARTS[name].maker()(split, count, seed))


def pictures(row: dict[str, Any]) -> Iterator[bytes]:
    if isinstance(row.get("image"), bytes):
        yield row["image"]
    for image in (*row.get("images", ()), *([row["image"]] if isinstance(row.get("image"), dict) else ())):
        yield image["bytes"]


def digest(rows: list[dict[str, Any]]) -> str:
    return hashlib.sha256(pickle.dumps(rows, protocol=4)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_the_columns_of_their_part(name):
    for split in SPLITS:
        rows = made(name, split, 2)
        table = pa.Table.from_pylist(rows, schema=PARTS[name].columns)
        assert table.num_rows == 2 and all(set(row) == set(PARTS[name].columns.names) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_hangs_on_split_seed_and_number_alone(name):
    first = made(name, "train", 3)
    assert made(name, "train", 5)[:3] == first
    assert made(name, "train", 3, seed=1) != first
    assert made(name, "validation", 3) != first


def test_another_process_makes_the_same_bytes():
    code = (
        "import hashlib, pickle, sys\nfrom corpus.parts import PARTS\n"
        "for name in sys.argv[1:]:\n"
        "    rows = list(PARTS[name].maker()('train', 2, 0))\n"
        "    print(hashlib.sha256(repr(rows).encode()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, *NAMES]
    there = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()
    here = [hashlib.sha256(repr(made(name, "train", 2)).encode()).hexdigest() for name in NAMES]
    assert there == here


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_in_two_splits(name):
    seen: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for row in made(name, split, 8):
            assert row["origin"], "a row says what it is made of"
            for thing in row["origin"]:
                seen[thing].add(split)
                assert split_of(thing) == split
    assert all(len(splits) == 1 for splits in seen.values())


def test_pictures_and_questions_of_test_are_in_no_other_split():
    images: dict[str, set[str]] = defaultdict(set)
    for name in NAMES:
        for split in SPLITS:
            for row in made(name, split, 6):
                for content in pictures(row):
                    images[hashlib.sha256(content).hexdigest()].add(split)
    assert images and all(len(splits) == 1 for splits in images.values())


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_small_rgb_files_without_alpha(name):
    for row in made(name, "test", 4):
        for content in pictures(row):
            with PIL.Image.open(io.BytesIO(content)) as image:
                assert image.mode in ("RGB", "L") and image.format == "WEBP"
                assert min(image.size) >= 30 and max(image.size) <= LONGEST


class Watched:
    """Recorder of text boxes: those that overlap another text or leave the sheet."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.boxes: dict[int, list[tuple[float, float, float, float, str]]] = defaultdict(list)
        self.papers: list[Paper] = []

    def put(self, original: Callable[..., None]) -> Callable[..., None]:
        def put(
            paper: Paper, x: int, base: int, text: str, writing: Any, *, side: str = "left", ink: Any = None
        ) -> None:
            length = writing.length(text)
            left = x - {"left": 0, "middle": length // 2, "right": length}[side]
            box = (left, base - 0.62 * writing.size, left + length, base)
            self.papers.append(paper)
            for a, b, c, d, other in self.boxes[id(paper)]:
                if text and other and left < c and a < box[2] and box[1] < d and b < base:
                    self.faults.append(f"{text!r} lies over {other!r}")
            self.boxes[id(paper)].append((*box, text))
            original(paper, x, base, text, writing, side=side, ink=ink)

        return put


@pytest.mark.parametrize("name", SHEETS)
def test_text_fits_and_overlaps_nothing(name, monkeypatch):
    watched = Watched()
    monkeypatch.setattr(Paper, "put", watched.put(Paper.put))
    for number in range(5):
        sheet = SHEETS[name](Lot(name, SPLITS[number % 3], number, 7))
        assert sheet.text and max(sheet.paper.image.size) <= LONGEST
        for left, top, right, bottom, text in watched.boxes[id(sheet.paper)]:
            assert left >= 0 and right <= sheet.paper.width and top >= 0 and bottom < sheet.paper.height, text
    assert watched.faults == []


@pytest.mark.parametrize("name", [name for name in SHEETS if name.startswith(("page", "printed", "written"))])
def test_no_ink_is_cut_off_at_the_edge(name):
    for number in range(3):
        paper = SHEETS[name](Lot(name, "train", number, 3)).paper
        grey = paper.image.convert("L")
        edge = [grey.getpixel((x, y)) for x in range(grey.width) for y in (0, grey.height - 1)]
        edge += [grey.getpixel((x, y)) for y in range(grey.height) for x in (0, grey.width - 1)]
        assert min(edge) > 200 or sum(value < 200 for value in edge) > grey.width // 2, "a band may reach the edge"


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("bold", [False, True])
def test_typefaces_have_every_letter(face, bold):
    writing = Print(face, 20, bold)
    missing = bytes(writing.font.getmask("\u0416"))
    letters_of = [chr(code) for code in range(0x21, 0x7F)]
    assert [letter for letter in letters_of if bytes(writing.font.getmask(letter)) == missing] == []
    assert (FOLDER / f"{FACES[face][1]}.ttf").is_file()


@pytest.mark.parametrize("name", HANDS)
def test_handwriting_stays_within_its_length(name):
    hand = Hand(Lot("hand", "train", 0, 0), name, 24)
    paper = Paper(hand.length("Old Fenworth met us") + 80, 120, margin=40)
    paper.line("Old Fenworth met us", hand)
    box = PIL.Image.eval(paper.image, lambda value: 255 - value).getbbox()
    assert box is not None and box[0] > 10 and box[2] < paper.width - 10 and box[3] < 120


def test_every_typeface_is_named_with_its_licence():
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    for file in FOLDER.glob("*.ttf"):
        assert f"`{file.stem}" in said or file.stem.startswith("DejaVu"), file.name
    assert (FOLDER / "OFL.txt").is_file() and (FOLDER / "DEJAVU-LICENSE.txt").is_file()


def test_a_lot_forgets_what_it_did_not_keep():
    lot = Lot("a", "test", 0, 0)
    kept = lot.draw(lambda: f"{lot.draw(lambda: str(lot.between(0, 999)))} outer {lot.between(0, 99)}")
    assert set(lot.origin) == {plain(kept), kept.split()[0]}


def test_a_lot_says_when_nothing_belongs_to_its_split():
    with pytest.raises(DataError, match="none of"):
        Lot("a", "validation", 0, 0).draw(lambda: "always the same")
    with pytest.raises(DataError, match="split 'dev' is unknown"):
        Lot("a", "dev", 0, 0)


def test_text_that_does_not_fit_is_refused():
    paper = Paper(100, 60)
    with pytest.raises(DataError, match="does not fit"):
        paper.line("a line far too long for this sheet", Print("sans", 20))
    paper.y += 500
    with pytest.raises(DataError, match="needs"):
        paper.cut()


def test_wrapped_text_is_the_text():
    writing = Print("serif", 14)
    text = "The editor whom you asked for is free on Saturday, and so are we."
    lines = wrap(text, writing, 140)
    assert " ".join(lines) == text and all(writing.length(line) <= 140 for line in lines)


def test_scans_keep_few_greys_and_the_sheet_as_it_was():
    sheet = letters.letter(Lot("scan", "train", 1, 0))
    before = sheet.paper.image.tobytes()
    with PIL.Image.open(io.BytesIO(scanned(Lot("scan", "train", 2, 0), sheet.paper))) as image:
        assert len(image.getcolors() or []) <= 8
    assert sheet.paper.image.tobytes() == before
    assert set(greys(sheet.paper.image, 0, 255, 2).tobytes()) <= {0, 255}


def test_a_drawing_of_too_many_colours_is_refused():
    noise = PIL.Image.effect_noise((400, 400), 90)
    photo = PIL.Image.merge("RGB", [noise, noise.rotate(90), noise.rotate(180)])
    with pytest.raises(DataError, match=str(MOST_COLOURS)):
        coloured(photo)


def test_descriptions_are_sentences_and_markdown_is_a_table():
    for row in made("description", "train", 40):
        (said,) = row["texts"]
        if said["user"] in description.AS_TABLE:
            lines = said["assistant"].splitlines()
            assert len({line.count("|") for line in lines}) == 1 and set(lines[1]) == set("| -")
        else:
            assert said["assistant"].startswith("This ") and said["assistant"].endswith(".")


def test_the_json_of_a_resume_is_json():
    for row in made("resumes", "test", 8):
        assert len(json.loads(row["texts"][0]["assistant"])) >= 3


def test_pages_have_the_columns_of_documents_and_benchmarks_ten_answers():
    assert PARTS["pages"].columns is DOCUMENTS
    assert len({row["name"] for row in made("pages", "train", 12)}) == 12
    for name in ("text_vqa", "doc_vqa"):
        rows = made(name, "test", 12)
        assert PARTS[name].columns is ANSWERS
        assert [row["question_id"] for row in rows] == list(range(12)) and all(
            len(row["answers"]) == 10 for row in rows
        )
        assert all(row["answers"].count(row["answers"][0]) >= 3 for row in rows)
