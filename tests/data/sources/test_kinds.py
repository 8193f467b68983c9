"""All kinds of sources, in the public layouts of their files: what can be read is kept, the rest refused by reason."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lorgnette.data.builtin.drawings import drawings
from lorgnette.data.sources.reading.schemas import IMAGE
from lorgnette.data.sources.table import KINDS, most_units
from lorgnette.errors import DataError
from lorgnette.inputs.image import open_image
from lorgnette.sample import Image, Sample, Text, Turn
from tests.data.sources.made import PARAGRAPH, html, lines, parquet, pdf, picture, warc
from tests.data.sources.made import record as archived
from tests.data.sources.sift import config, sift

A, B, C = (picture(seed=seed) for seed in range(3))


def held(content: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": content, "path": path}


@dataclass(frozen=True)
class Case:
    """Files of one layout, and what must come of them."""

    kind: str
    write: Callable[[Path], Path]
    """Writes the files below a folder, and says what the source's path is."""
    kept: tuple[tuple[str, int], ...]
    """Text and number of images of each record."""
    refused: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    converted: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def obelics(folder: Path) -> Path:
    (folder / "c.png").write_bytes(C)
    rows = [
        {"images": [held(A), None], "texts": [None, "after A"], "metadata": "[]", "general_metadata": "{}"},
        {"images": [None, held(None, "c.png"), None], "texts": ["before", None, "after C"]},
        {"images": [held(A), None], "texts": [None]},
        {"images": [held(A)], "texts": ["both"]},
        {"images": None, "texts": ["x"]},
        {"images": [None], "texts": ["no picture"]},
        {"images": [held(A), None], "texts": [None, "  "]},
        {"images": [held(None, "gone.png"), None], "texts": [None, "x"]},
    ]
    schema = pa.schema({"images": pa.list_(IMAGE), "texts": pa.list_(pa.string()), "metadata": pa.string()})
    return parquet(folder / "train.parquet", [{"metadata": None, **row} for row in rows], schema)


def cauldron(folder: Path) -> Path:
    ask = {"user": "What?", "assistant": "This.", "source": "VQAv2"}
    rows = [
        {"images": [held(A)], "texts": [ask, {**ask, "user": "And?"}]},
        {"images": [held(A), held(B)], "texts": [ask]},
        {"images": [], "texts": [ask]},
        {"images": [held(B)], "texts": [{**ask, "assistant": None}]},
        {"images": [held(B)], "texts": []},
        {"images": [held(None, None)], "texts": [ask]},
        {"images": None, "texts": [{**ask, "user": " "}]},
    ]
    texts = pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string(), "source": pa.string()}))
    return parquet(folder / "train-00000.parquet", rows, pa.schema({"images": pa.list_(IMAGE), "texts": texts})).parent


def cauldron_to_merge(folder: Path) -> Path:
    one, two = ({"user": f"{n}?", "assistant": f"{n}.", "source": "s"} for n in "12")
    rows = [{"images": [held(A)], "texts": [one]}, {"images": [held(B)], "texts": [one]}]
    rows += [{"images": [held(A)], "texts": [two, one]}, {"images": [held(B), held(A)], "texts": [one]}]
    return parquet(folder / "train.parquet", rows)


def llava(folder: Path) -> Path:
    (folder / "a.png").write_bytes(A)
    human, gpt = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A tile."}
    rows = [
        {"id": "1", "image": "a.png", "conversations": [human, gpt]},
        {"id": "2", "conversations": [{"from": "human", "value": "Type <image> please"}, gpt]},
        {"id": "3", "image": "a.png", "conversations": [human, gpt, {"from": "human", "value": "And?"}]},
        {"id": "4", "image": "gone.png", "conversations": [human, gpt]},
        {"id": "5", "image": "a.png", "conversations": [{"from": "robot", "value": "hm"}, gpt]},
        {"id": "6", "image": "a.png", "conversations": [human]},
        {"id": "7", "image": ["a.png", "a.png"], "conversations": [human, gpt]},
        "no row",
    ]
    (folder / "llava.json").write_text(json.dumps(rows))
    return folder / "llava.json"


def sharegpt(folder: Path) -> Path:
    talk = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]
    return lines(folder / "talk.jsonl", [{"conversations": talk}, {"system": "Be kind.", "conversations": talk[1:]}])


def trl(folder: Path) -> Path:
    def said(role: str, *parts: Any) -> dict[str, Any]:
        return {"role": role, "content": list(parts)}

    bare, text = {"type": "image", "text": None}, {"type": "text", "text": "What?"}
    answer = said("assistant", {"type": "text", "text": "This."})
    rows = [
        {"images": [held(A), held(B)], "messages": [said("user", bare, text, bare), answer]},
        {"images": [], "messages": [said("user", text), answer]},
        {"images": [held(A)], "messages": [said("user", bare, bare), answer]},
        {"images": [held(A)], "messages": []},
        {"images": [held(A)], "messages": None},
    ]
    return parquet(folder / "trl.parquet", rows)


def openai(folder: Path) -> Path:
    url = "data:image/png;base64," + base64.b64encode(A).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    talk = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
    rows = [{"messages": [*talk, {"role": "assistant", "content": "This."}]}]
    rows += [{"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "This."}]}]
    return lines(folder / "talk.jsonl", rows)


def pairs_parquet(folder: Path) -> Path:
    rows = [
        {"image": held(A), "alt": "an alt", "caption": "a sentence"},
        {"image": held(B), "alt": "an alt", "caption": None},
        {"image": held(C), "alt": " ", "caption": ""},
        {"image": None, "alt": "an alt", "caption": "x"},
    ]
    return parquet(folder / "pairs.parquet", rows)


def pairs_beside(folder: Path) -> Path:
    for name, content in {"a.png": A, "b.PNG": B, "c.png": C}.items():
        (folder / name).write_bytes(content)
    (folder / "a.txt").write_text("\ufeffone caption\n")
    (folder / "b.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "d.txt").write_text("of no image")
    return folder


def pairs_table(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(A)
    (folder / "metadata.csv").write_text('file_name,caption\nsub/a.png,"A, b"\ngone.png,x\n,y\nsub/a.png,\n')
    return folder


def pdf_files(folder: Path) -> Path:
    text = [(60.0, 700.0, "A page with enough text to be read.")]
    (folder / "a.pdf").write_bytes(pdf([text, [], [(60.0, 700.0, "short")], text]))
    (folder / "b.pdf").write_bytes(b"%PDF-1.4 no more than this")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def pages_parquet(folder: Path) -> Path:
    rows = [{"image": A, "text": "What stands on the page.", "name": "a", "page": 1}]
    rows += [{"image": None, "text": "What stands on the page.", "name": "a", "page": 2}]
    rows += [{"image": B, "text": None, "name": "a", "page": 3}]
    return parquet(folder / "pages.parquet", rows)


def html_files(folder: Path) -> Path:
    for name, content in {"a.png": A, "b.png": B, "small.png": picture(100, 300), "broken.png": A[:99]}.items():
        (folder / name).write_bytes(content)
    shown = "<p>Two tiles <img src='a.png'> in one paragraph that goes on for longer than a caption.</p>"
    (folder / "one.html").write_text(
        html("One", shown, "<img src='small.png'><img src='broken.png'><img src='no.png'>")
    )
    (folder / "two.html").write_text(html("Two", shown.replace("a.png", "b.png")))
    (folder / "again.html").write_text(html("Two", shown.replace("a.png", "b.png")))
    (folder / "blank.html").write_text("<html><nav>Home</nav></html>")
    return folder


def warc_files(folder: Path) -> Path:
    shown = "<p>A tile <img src='/a.png' alt='red and green'> that the text goes on about for some more words.</p>"
    records = [
        archived("https://a.example/one", "text/html; charset=iso-8859-1", html("Café", shown).encode("latin-1")),
        archived("https://a.example/a.png", "image/png", A),
        archived("https://a.example/x.css", "text/css", b"p {}"),
        archived("https://a.example/gone", "text/html", b"gone", status="404 Not Found"),
    ]
    (folder / "crawl.warc.gz").write_bytes(warc(records))
    return folder


def page(title: str, *more: str) -> str:
    return "\n\n".join((title, f"{PARAGRAPH} So says {title}, page 0.", *more))


def composed(folder: Path) -> Path:
    known = drawings("train")
    row = {"drawings": [known[3].id], "boxes": [0, 0, 30, 30], "mirrored": [], "width": 64, "height": 32}
    row |= {"background": "#ff0000", "texts": [{"user": "How many?", "assistant": "One."}], "caption": None}
    rows = [row, {**row, "drawings": ["no such drawing"]}]
    (folder / "scenes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return folder / "scenes.jsonl"


CASES = {
    "composed scenes": Case("scenes", composed, (("How many?One.", 1),), {"no drawing": 1}, converted=True),
    "obelics": Case(
        "interleaved",
        obelics,
        (("after A", 1), ("beforeafter C", 1)),
        {"layout": 2, "no value": 1, "no image": 3},
    ),
    "cauldron": Case(
        "instruct",
        cauldron,
        (("What?This.And?This.", 1), ("What?This.", 2), ("What?This.", 0), ("What?This.", 0)),
        {"no answer": 1, "no text": 1, "no question": 1},
    ),
    "cauldron to merge": Case(
        "instruct",
        cauldron_to_merge,
        (("1?1.2?2.", 1), ("1?1.", 1), ("1?1.", 2)),
        left_out={"merged": 1},
        converted=True,
    ),
    "llava": Case(
        "chat",
        llava,
        (("\nWhat is it?A tile.", 1), ("Type <image> pleaseA tile.", 0), ("\nWhat is it?A tile.", 1)),
        {"no image": 1, "role": 1, "no answer": 1, "images": 1, "wrong type": 1},
        converted=True,
    ),
    "sharegpt": Case("chat", sharegpt, (("Be brief.HiHi.", 0), ("Be kind.HiHi.", 0)), converted=True),
    "trl": Case("chat", trl, (("What?This.", 2), ("What?This.", 0)), {"images": 1, "no text": 1, "no value": 1}),
    "openai": Case("chat", openai, (("What?This.", 1),), {"wrong type": 1}, converted=True),
    "pairs": Case(
        "pairs",
        pairs_parquet,
        (("a sentence", 1),),
        {"no caption": 2, "no value": 1},
        settings={"captions": "synthetic"},
    ),
    "captions beside images": Case(
        "pairs", pairs_beside, (("one caption", 1),), {"no caption": 2, "no image": 1}, converted=True
    ),
    "a table of captions": Case("pairs", pairs_table, (("A, b", 1),), {"no image": 2, "no caption": 1}, converted=True),
    "pdf": Case(
        "documents",
        pdf_files,
        (("A page with enough text to be read.", 1),) * 2,
        {"no text layer": 1, "little text": 1, "unreadable file": 1},
        converted=True,
    ),
    "pages": Case("documents", pages_parquet, (("What stands on the page.", 1),), {"no value": 1, "no text layer": 1}),
    "html": Case(
        "webpages",
        html_files,
        tuple(
            (page(title, "Two tilesin one paragraph that goes on for longer than a caption."), 1)
            for title in ("One", "Two")
        ),
        {"duplicate page": 1, "empty": 1},
        {"small image": 1, "unreadable image": 1, "no image": 1},
        converted=True,
    ),
    "warc": Case(
        "webpages",
        warc_files,
        ((page("Café", "A tilered and green", "that the text goes on about for some more words."), 1),),
        {"not a page": 1},
        converted=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_read_is_kept_and_the_rest_is_refused_by_reason(name, tmp_path):
    case = CASES[name]
    (tmp_path / "files").mkdir()
    sifted = sift(config(case.kind, case.write(tmp_path / "files"), **case.settings), tmp_path)
    found = sorted((record.piece().text, len(record.images)) for record in sifted.records)
    assert found == sorted(case.kept), sifted.details
    assert sifted.refused == Counter(case.refused), sifted.details
    assert sifted.left_out == Counter(case.left_out), sifted.details
    assert sifted.converted == case.converted


def test_every_kind_has_a_case():
    assert {case.kind for case in CASES.values()} == KINDS.keys()


@pytest.mark.parametrize("name", CASES)
def test_pieces_make_samples_that_teach_something_and_whose_images_open(name, tmp_path):
    case = CASES[name]
    (tmp_path / "files").mkdir()
    for record in sift(config(case.kind, case.write(tmp_path / "files"), **case.settings), tmp_path).records:
        whole = record.piece()
        assert isinstance(whole, Sample) and any(
            one.supervised and one.text for one in whole.segments if isinstance(one, Text)
        )
        assert whole.meta["source"] and whole.name
        assert [open_image(image.source).mode for image in whole.images] == ["RGB"] * len(record.images)
        for number in range(len(record.units)):
            piece = record.piece(number, number + 1)
            shown = [one for at, one in record.images if at in (-1, number)]
            assert list(piece.images) == shown
        chat = case.kind in ("instruct", "chat", "scenes")
        assert whole.is_chat == chat
        if chat:
            _only_answers_are_learned(whole)


def _only_answers_are_learned(sample: Sample) -> None:
    role = ""
    for one in sample.segments:
        if isinstance(one, Turn):
            role = one.role
        elif isinstance(one, Text):
            assert one.supervised == (role == "assistant")


@pytest.mark.parametrize("name", CASES)
def test_converted_images_are_the_bytes_of_their_files(name, tmp_path):
    """No image is encoded again; a PDF page, which is no image before, is a PNG."""
    case = CASES[name]
    (tmp_path / "files").mkdir()
    sifted = sift(config(case.kind, case.write(tmp_path / "files"), **case.settings), tmp_path)
    for record in sifted.records:
        for _, image in record.images:
            content = image.source if isinstance(image.source, bytes) else Path(str(image.source)).read_bytes()
            assert content in (A, B, C) or (name == "pdf" and content.startswith(b"\x89PNG")) or case.kind == "scenes"
            assert isinstance(image, Image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_without_files_of_the_kind_is_named(kind, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        sift(config(kind, tmp_path / "nowhere"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file that ends with"):
        sift(config(kind, tmp_path / "empty"), tmp_path)


def test_only_instructions_have_a_limit_of_turns():
    found = {kind: most_units(config(kind, "x")) for kind in KINDS}
    assert found == {**dict.fromkeys(KINDS), "instruct": 7}
