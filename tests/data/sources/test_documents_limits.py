"""PDF files that lie about their pages, ask for endless drawing, or hold filled forms."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pypdfium2
import pytest

from lorgnette.data.sources import documents
from lorgnette.data.sources.pdf import pdf_page
from tests.data.sources.made import PARAGRAPH, pdf
from tests.data.sources.sift import config, sift

LINES = [(60.0, 700.0, PARAGRAPH), (60.0, 400.0, "What stands below the form.")]


def pdf_of(objects: list[bytes]) -> bytes:
    """A file of these objects, the first of which is its catalogue."""
    file, places = b"%PDF-1.7\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    size = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n" % size + b"".join(b"%010d 00000 n \n" % place for place in places)
    return file + table + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(file))


def stream(content: bytes) -> bytes:
    packed = zlib.compress(content, 9)
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)


def page_of(content: bytes, media: str = "0 0 612 792", more: bytes = b"", catalogue: bytes = b"") -> list[bytes]:
    """The objects of a file with one page; the next one to come has number 6."""
    return [
        b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalogue,
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [%s] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> %s >>"
        % (media.encode(), more),
        stream(content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]


def said(text: str, bottom: int = 700, size: int = 12) -> bytes:
    return b"BT /F1 %d Tf 1 0 0 1 50 %d Tm (%s) Tj ET\n" % (size, bottom, text.encode())


FIELD = b"/Type /Annot /Subtype /Widget /F 4 /DA (/F1 12 Tf 0 g) /P 3 0 R"


def form(fields: list[bytes]) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in range(6, 6 + len(fields)))
    acro = b"/AcroForm << /Fields [%s] /NeedAppearances true /DR << /Font << /F1 5 0 R >> >> >>" % kids
    content = said("Name of the keeper:") + said("Signed at the northern cape, and witnessed.", 500)
    objects = page_of(content, more=b"/Annots [%s]" % kids, catalogue=acro)
    return pdf_of([*objects, *(b"<< %s %s >>" % (FIELD, one) for one in fields)])


NAME = b"/FT /Tx /T (name) /V (Ada Lovelace) /Rect [200 690 400 712]"
HIDDEN = [
    b"/FT /Tx /T (secret) /Ff 8192 /V (opensesame) /Rect [200 640 400 660]",
    b"/FT /Tx /T (unseen) /F 2 /V (invisible) /Rect [200 600 400 620]",
    b"/FT /Btn /T (tick) /V /Yes /AS /Yes /Rect [200 560 220 580]",
]


def test_a_filled_form_is_drawn_and_its_values_are_in_the_text(tmp_path: Path):
    made = {}
    for name, fields in {"filled": [NAME, *HIDDEN], "empty": []}.items():
        (tmp_path / f"{name}.pdf").write_bytes(form(fields))
        (record,) = sift(config("documents", tmp_path / f"{name}.pdf"), tmp_path).records
        made[name] = record
    text = made["filled"].piece().text
    assert text.index("keeper:") < text.index("Ada Lovelace") < text.index("Signed at")
    assert not any(word in text for word in ("opensesame", "invisible", "Yes"))
    pixels = {
        name: np.asarray(PIL.Image.open(io.BytesIO(one.images[0][1].source)).convert("L")) for name, one in made.items()
    }
    field = {name: (one[160:204, 400:800] < 128).sum() for name, one in pixels.items()}
    assert field["filled"] > 100 and field["empty"] == 0


def test_values_of_several_lines_and_choices_are_read(tmp_path: Path):
    choice = b"/FT /Ch /Ff 131072 /T (c) /Opt [(granite) (basalt)] /V (basalt) /Rect [200 640 400 660]"
    lines = b"/FT /Tx /Ff 4096 /T (m) /V (first line\rsecond line) /Rect [200 560 400 620]"
    (tmp_path / "a.pdf").write_bytes(form([choice, lines]))
    (record,) = sift(config("documents", tmp_path / "a.pdf"), tmp_path).records
    text = " ".join(record.piece().text.split())
    assert "basalt" in text and "first line second line" in text


@pytest.mark.parametrize("grey", [False, True])
def test_drawing_step_by_step_gives_the_pixels_of_the_library(grey: bool):
    document = pypdfium2.PdfDocument(pdf([LINES], content="1 0 0 rg 100 100 300 200 re f"))
    drawn = np.asarray(pdf_page.draw_page(document[0], 144, grey))
    assert np.array_equal(drawn, np.asarray(document[0].render(scale=2, grayscale=grey).to_pil()))


def test_a_count_that_lies_is_one_refusal(tmp_path: Path):
    content = pdf([LINES]).replace(b"/Count 1", b"/Count 999991", 1)
    (tmp_path / "a.pdf").write_bytes(content)
    found = sift(config("documents", tmp_path / "a.pdf"), tmp_path)
    assert len(found.records) == 1
    assert found.refused == {"unreadable page": documents.MOST_LOST, "unreadable pages": 1}
    assert "pages 22 to 999991" in found.details[-1]


def test_damaged_pages_among_others_cost_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "MOST_LOST", 2)
    content = pdf([LINES] * 6)
    kids = content[content.index(b"/Kids [") : content.index(b"] /Count")]
    names = kids.split()
    for page in (1, 3):  # numbers from 0
        names[1 + 3 * page] = names[1 + 3 * page].replace(names[1 + 3 * page].lstrip(b"["), b"99")
    (tmp_path / "a.pdf").write_bytes(content.replace(kids, b" ".join(names)))
    found = sift(config("documents", tmp_path / "a.pdf"), tmp_path)
    assert len(found.records) == 4 and found.refused == {"unreadable page": 2}


@pytest.mark.parametrize("media", ["0 0 1000000 1000000", "0 0 1000000 300", "0 0 14400 14400"])
def test_a_page_of_any_size_is_drawn_within_limits(media: str, tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(pdf_of(page_of(said(PARAGRAPH, 100), media)))
    (record,) = sift(config("documents", tmp_path / "a.pdf"), tmp_path).records
    width, height = PIL.Image.open(io.BytesIO(record.images[0][1].source)).size
    assert width * height <= 1.01 * pdf_page.MOST_PAGE_PIXELS and max(width, height) <= pdf_page.LONGEST_SIDE


@pytest.mark.parametrize("media", ["0 0 0 0", "0 0 99999999 0.001"])
def test_a_page_of_no_size_is_refused_or_drawn(media: str, tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(pdf_of(page_of(said(PARAGRAPH), media)))
    assert sift(config("documents", tmp_path / "a.pdf"), tmp_path).rows == 1


def test_a_page_that_draws_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pdf_page, "DRAW_SECONDS", 0.3)
    (tmp_path / "a.pdf").write_bytes(pdf_of(page_of(said(PARAGRAPH) + b"0 0 m 600 700 l S\n" * 100_000)))
    (tmp_path / "b.pdf").write_bytes(pdf([LINES]))
    found = sift(config("documents", tmp_path), tmp_path)
    assert found.refused == {"slow page": 1} and len(found.records) == 1


def test_a_page_of_endless_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "MOST_CHARACTERS", 1_000)
    (tmp_path / "a.pdf").write_bytes(pdf_of(page_of(b"".join(said(PARAGRAPH, y) for y in range(20, 780, 20)))))
    assert sift(config("documents", tmp_path / "a.pdf"), tmp_path).refused == {"large page": 1}
