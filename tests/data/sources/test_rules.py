"""The original's rules, each an option: what is refused, what is cut and where, what is learned."""

from __future__ import annotations

from typing import Any

import pytest

from lorgnette.data.config import DocumentsConfig, InstructConfig, InterleavedConfig, PairsConfig
from lorgnette.data.record import Refused
from lorgnette.data.sources import documents, instruct, interleaved, pairs
from lorgnette.data.sources.reading.values import LONGEST_TEXT, cut_text
from lorgnette.sample import Image, Text, Turn
from tests.data.sources.made import parquet, pdf, picture
from tests.data.sources.sift import config, sift

A, B, C = ({"bytes": picture(seed=seed), "path": None} for seed in range(3))


def document(*parts: Any) -> dict[str, Any]:
    """A row of OBELICS: a string is a text, anything else an image."""
    return {
        "images": [None if isinstance(part, str) else part for part in parts],
        "texts": [part if isinstance(part, str) else None for part in parts],
    }


def shape(row: dict[str, Any], **options: Any) -> str:
    """`i` for an image and `t` for a text, with a bar between units; or why the row is refused."""
    try:
        record = interleaved.read(row, InterleavedConfig(path="x", **options), "row")
    except Refused as refused:
        return refused.reason
    return "|".join("".join("i" if isinstance(one, Image) else "t" for one in unit) for unit in record.units)


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        (document(A, "x"), {}, "it"),
        (document("x"), {}, "no image"),
        (document(A), {}, "no image"),
        (document("x"), {"need_both": False}, "t"),
        (document(A), {"need_both": False, "drop_lone_last_image": False}, "i"),
        (document(A, B, "x"), {}, "iit"),
        (document(A, B, C, "x"), {}, "images in a row"),
        (document(A, B, C, "x"), {"most_images_in_a_row": 3}, "iiit"),
        (document(A, B, C, "x", A), {"most_images_in_a_row": None}, "iiit"),
        (document(A, B, " ", C, "x"), {}, "images in a row"),
        (document(A, "x", B), {}, "it"),
        (document(A, "x", B, C), {}, "it"),
        (document(A, "x", B), {"drop_lone_last_image": False}, "it|i"),
        (document("x", A, "y", B, C, "z"), {}, "t|it|iit"),
        (document(*[A] * 6, "x"), {"most_images_in_a_row": None}, "i|i|iiiit"),
        (document("x", "y", A, "z"), {}, "t|t|it"),
    ],
)
def test_interleaved_documents_follow_the_rules(row, options, expected):
    assert shape(row, **options) == expected


def test_a_long_document_is_cut_at_borders_and_nothing_of_it_is_lost():
    text = " ".join(f"This is sentence {number} of a long text." for number in range(400))
    record = interleaved.read(document("x", A, text, B, "end"), InterleavedConfig(path="x"), "row")
    assert [len(unit) for unit in record.units][:2] == [1, 2] and len(record.units) > 8
    pieces = [record.piece(number, number + 1) for number in range(len(record.units))]
    assert "".join(piece.text for piece in pieces) == "x" + text + "end" == record.piece().text
    assert all(len(piece.text) <= LONGEST_TEXT for piece in pieces)
    assert all(piece.text.endswith(".") for piece in pieces[1:-1])
    assert [len(piece.images) for piece in pieces] == [0, 1, *[0] * (len(pieces) - 3), 1]


def test_the_mark_of_a_new_topic_is_a_paragraph():
    row = document(A, f"one{interleaved.END_OF_DOCUMENT}two")
    assert interleaved.read(row, InterleavedConfig(path="x"), "row").piece().text == "one\n\ntwo"


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("", 5, []),
        ("abc", 5, ["abc"]),
        ("aaa\n\nbbb ccc", 8, ["aaa\n\n", "bbb ccc"]),
        ("aaaa. bbb ccc", 8, ["aaaa.", " bbb ccc"]),
        ("aaaa bbbb", 6, ["aaaa", " bbbb"]),
        ("aaaabbbb", 3, ["aaa", "abb", "bb"]),
        ("あああ。いいい", 5, ["あああ。", "いいい"]),
    ],
)
def test_a_text_is_cut_where_it_may_be(text, longest, expected):
    assert cut_text(text, longest) == expected and "".join(expected) == text


def questions(images: list[Any], *texts: tuple[str, str]) -> dict[str, Any]:
    return {"images": images, "texts": [{"user": user, "assistant": answer, "source": "s"} for user, answer in texts]}


def test_instructions_learn_answers_alone_and_every_piece_shows_the_images():
    row = questions([A, B], *((f"q{n}", f"a{n}") for n in range(9)))
    record = instruct.read(row, InstructConfig(path="x"), "row")
    assert record.shuffle and len(record.units) == 9
    piece = record.piece(2, 5, order=[2, 0, 1])
    assert [one for one in piece.segments if not isinstance(one, Image)] == [
        part
        for n in (4, 2, 3)
        for part in (Turn("user"), Text(f"q{n}"), Turn("assistant"), Text(f"a{n}", supervised=True))
    ]
    assert isinstance(piece.segments[0], Turn) and len(piece.images) == 2 and piece.images == record.piece(8, 9).images
    assert not instruct.read(row, InstructConfig(path="x", shuffle_turns=False), "row").shuffle
    assert record.meta["tags"] == ["s"]


def test_questions_on_the_same_images_are_merged_once_each(tmp_path):
    rows = [questions([A], ("1", "x"), ("2", "y")), questions([B], ("1", "x"))]
    rows += [questions([A], ("3", "z"), ("1", "x")), questions([A, B], ("1", "x")), questions([], ("1", "x"))]
    rows += [questions([A], ("4", "")), questions([], ("1", "x"))]
    path = parquet(tmp_path / "a.parquet", rows)
    merged = sift(config("instruct", path), tmp_path)
    assert [len(one.units) for one in merged.records] == [3, 1, 1, 1, 1]
    assert merged.refused == {"no answer": 1} and merged.left_out == {"merged": 1}
    assert merged.rows + merged.left_out.total() == len(rows)
    apart = sift(config("instruct", path, merge=False), tmp_path)
    assert not apart.converted and [len(one.units) for one in apart.records] == [2, 1, 2, 1, 1, 1]


def test_a_pair_learns_the_kind_of_caption_that_is_asked_for():
    row = {"image": A, "alt": ["DSC_1", " "], "caption": "A tile of many colours."}
    found = {kind: pairs.read(row, PairsConfig(path="x", captions=kind), "r") for kind in ("alt", "synthetic", "both")}
    assert found["alt"].piece().segments[1:] == (Text("DSC_1", supervised=True),)
    assert found["synthetic"].piece().segments[1:] == (Text("A tile of many colours.", supervised=True),)
    assert found["both"] == pairs.read(dict(row), PairsConfig(path="elsewhere", name=found["both"].meta["source"]), "r")


def test_both_kinds_of_captions_come_as_often():
    def learned(number: int) -> str:
        row = {"image": A, "alt": [f"a{number}", f"A{number}"], "caption": f"c{number}"}
        return pairs.read(row, PairsConfig(path="x"), "r").piece().text[0]

    drawn = [learned(number) for number in range(400)]
    assert 160 < drawn.count("c") < 240 and 70 < drawn.count("a") < 130 and drawn.count("A") > 70


def test_a_page_of_long_text_shows_its_picture_in_every_piece():
    text = "\n\n".join(f"Paragraph {number} " + "word " * 60 for number in range(20))
    record = documents.read({"image": picture(), "text": text}, DocumentsConfig(path="x"), "page")
    assert len(record.units) > 2 and record.piece().text == text.strip()
    for number in range(len(record.units)):
        piece = record.piece(number, number + 1)
        assert isinstance(piece.segments[0], Image) and len(piece.text) <= LONGEST_TEXT


@pytest.mark.parametrize(("dpi", "grey"), [(36, False), (72, True), (144, False)])
def test_pages_are_drawn_at_the_dpi_and_without_colour_if_asked(dpi, grey, tmp_path):
    import io

    import PIL.Image

    drawn = "1 0 0 rg 100 100 300 300 re f 0 g"
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([[(60.0, 700.0, "A page with enough text to be read.")]], content=drawn))
    (record,) = sift(config("documents", path, dpi=dpi, grey=grey), tmp_path).records
    content = record.images[0][1].source
    assert isinstance(content, bytes)
    page = PIL.Image.open(io.BytesIO(content))
    assert page.size == (612 * dpi // 72, 792 * dpi // 72) and page.mode == ("L" if grey else "RGB")
    centre = page.convert("RGB").getpixel((250 * dpi // 72, (792 - 250) * dpi // 72))
    assert (len(set(centre)) == 1) == grey and centre != (255, 255, 255)  # type: ignore[arg-type]
    plain = tmp_path / "plain.pdf"
    plain.write_bytes(pdf([[(60.0, 700.0, "A page with enough text to be read.")]]))
    (record,) = sift(config("documents", plain, dpi=dpi), tmp_path).records
    assert PIL.Image.open(io.BytesIO(record.images[0][1].source)).mode == "L"  # type: ignore[arg-type]


def test_a_poster_is_drawn_smaller_and_a_page_without_size_refused(tmp_path):
    whole = pdf([[(60.0, 700.0, "A page with enough text to be read.")]])
    huge = tmp_path / "huge.pdf"
    huge.write_bytes(whole.replace(b"[0 0 612 792]", b"[0 0 9000 9000]"))
    (record,) = sift(config("documents", huge), tmp_path).records
    from lorgnette.inputs.image import open_image

    assert abs(open_image(record.images[0][1].source).width - 5000) < 3


def test_pages_that_cannot_be_read_are_refused_by_page(tmp_path):
    codes = "".join(chr(code) for code in range(1, 9)) * 4
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([[(60.0, 700.0, "A page with enough text to be read.")], [(60.0, 700.0, codes)], []]))
    found = sift(config("documents", path), tmp_path)
    assert len(found.records) == 1 and found.refused.total() == 2 and found.refused["no text layer"] >= 1
    assert any("page 3" in detail for detail in found.details)
