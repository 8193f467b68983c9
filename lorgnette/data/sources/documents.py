"""PDF files: each page as a picture, and the text of its text layer in reading order."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lorgnette.data.config import DocumentsConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.pdf.layout import TextBox, read_page
from lorgnette.data.sources.pdf.pdf_page import draw_page, field_boxes
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.row_files import rows_of
from lorgnette.data.sources.reading.shards import is_url, list_files, read_bytes
from lorgnette.data.sources.reading.values import cut_text, missing, read_image, stored
from lorgnette.errors import DataError
from lorgnette.sample import Text

if TYPE_CHECKING:
    import pypdfium2

SUFFIXES = (".pdf", ".parquet")
LOST = "unreadable page"
MOST_LOST = 20
"""Pages in a row that cannot be loaded, behind which no others are tried: files may say that they have millions."""
MOST_PAGES = 20_000
"""Pages of a file that are read."""
MOST_CHARACTERS = 200_000
"""Characters of a page; a page of a dense encyclopedia has 20,000."""
MOST_UNKNOWN = 0.1
"""Share of characters that no code is known for, beyond which a page's text cannot be what is seen on it."""
UPRIGHT = math.radians(8)
"""A line that leans by more than this stands by itself, in the order in which it is drawn: a watermark."""

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\ufeff\ufff9-\uffff\ue000-\uf8ff]")
"""Codes that are not text: control characters, the replacement character, and private codes of a font."""
HYPHENS = {0x02: "-", 0xFFFE: "-", 0xAD: "-"}
"""Codes by which the reader writes a hyphen at the end of a line, each mapped to a hyphen."""
LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}


def read(row: Mapping[str, Any], config: DocumentsConfig, name: str) -> Record:
    """A page as prefix, and its text in parts of at most about 2,000 characters, all learned.

    Every piece of a long page shows the picture again. Raises: Refused without picture or text.
    """
    if row.get("image") is None:
        raise missing(row, "image")
    image = read_image(row["image"], row, "'image'")
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        raise Refused("wrong type", f"'text' is a {type(text).__name__}, not a string")
    _long_enough(text or "", config)
    units = tuple((Text(part, supervised=True),) for part in cut_text((text or "").strip()))
    return Record(units, prefix=(image,), meta={"name": name, "source": config.title})


def _long_enough(text: str, config: DocumentsConfig) -> None:
    """Raises: Refused for a page that has no text to read, or next to none."""
    characters = len("".join(text.split()))
    if not characters:
        raise Refused("no text layer", "the page is a picture alone; recognise its text first")
    if characters < config.shortest_text:
        raise Refused("little text", f"{characters} characters; shortest_text asks for {config.shortest_text}")


def must_convert(config: DocumentsConfig) -> bool:
    """Return whether there is a PDF, or images are links: parquet of pages is read in place."""
    parquet = all(path.lower().endswith(".parquet") for path in list_files(config.path, SUFFIXES))
    return not parquet or holds_links(config.path, ("image",))


def convert(config: DocumentsConfig) -> Iterator[RowOrRejected]:
    """A row for each page of each file: its picture as PNG, its text, the file's name and the page's number from 1.

    A file that cannot be opened is one RejectedRow, whatever its pages.
    """
    for path in list_files(config.path, SUFFIXES):
        if path.lower().endswith(".parquet"):
            yield from (_again(path, place, row) for place, row in rows_of(path))
            continue
        try:
            document = _open(path)
        except Refused as refused:
            yield RejectedRow(path, "", refused.reason, refused.detail)
            continue
        with document:
            yield from _pages(document, path, config)


def _pages(document: pypdfium2.PdfDocument, path: str, config: DocumentsConfig) -> Iterator[RowOrRejected]:
    """The pages of a file, each read or refused. Those that it cannot have in truth are one RejectedRow together."""
    count, lost = len(document), 0
    for number in range(count):
        if lost == MOST_LOST or number == MOST_PAGES:
            reason = f"the {lost} before cannot be loaded" if lost else f"a file is read up to page {MOST_PAGES:,}"
            yield RejectedRow(path, f"pages {number + 1} to {count}", "unreadable pages", reason)
            return
        try:
            page = _load(document, number)
            lost = 0
            with contextlib.closing(page):
                yield _page(page, number, path, config)
        except Refused as refused:
            lost += refused.reason == LOST
            yield RejectedRow(path, f"page {number + 1}", refused.reason, refused.detail)


def _load(document: pypdfium2.PdfDocument, number: int) -> pypdfium2.PdfPage:
    import pypdfium2

    try:
        return document[number]
    except pypdfium2.PdfiumError as error:
        raise Refused(LOST, str(error)) from None


def _again(path: str, place: str, row: RowOrRejected) -> RowOrRejected:
    """A page that stands in parquet beside PDF files."""
    if isinstance(row, RejectedRow):
        return row
    try:
        if row.get("image") is None:
            raise missing(row, "image")
        image = stored(read_image(row["image"], row, "'image'"), "'image'")["bytes"]
        if not isinstance(row.get("text"), str):
            raise missing(row, "text")
    except Refused as refused:
        return RejectedRow(path, place, refused.reason, refused.detail)
    page = row.get("page")
    return {
        "image": image,
        "text": row["text"],
        "name": str(row.get("name") or path),
        "page": page if isinstance(page, int) and 0 <= page < 2**31 else None,
    }


def _open(path: str) -> pypdfium2.PdfDocument:
    """Raises: Refused for a file that is no PDF, is broken, or needs a password."""
    try:
        import pypdfium2
    except ImportError:
        raise DataError(f"{path}: reading PDF needs `pip install 'lorgnette[data]'`") from None
    try:
        document = pypdfium2.PdfDocument(read_bytes(path) if is_url(path) else path)
    except pypdfium2.PdfiumError as error:
        reason = "encrypted" if "assword" in str(error) else "unreadable file"
        raise Refused(reason, str(error)) from None
    except (DataError, OSError) as error:
        raise Refused("unreadable file", str(error)) from None
    with contextlib.suppress(pypdfium2.PdfiumError):
        document.init_forms()  # before any page is loaded, or filled fields are not drawn
    if not len(document):
        document.close()
        raise Refused("unreadable file", "the file has no pages")
    return document


def _page(page: pypdfium2.PdfPage, number: int, path: str, config: DocumentsConfig) -> dict[str, Any]:
    import pypdfium2

    try:
        text = page_text(page)
        _long_enough(text, config)
        image = _picture(page, config)
    except pypdfium2.PdfiumError as error:
        raise Refused("damaged page", str(error)) from None
    return {"image": image, "text": text, "name": path, "page": number + 1}


def _picture(page: pypdfium2.PdfPage, config: DocumentsConfig) -> bytes:
    """The page at the settings' dpi as PNG; without colour where it has none."""
    image = draw_page(page, config.dpi, config.grey)
    if image.mode != "L":
        pixels = np.asarray(image)
        if (pixels == pixels[..., :1]).all():
            image = image.convert("L")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def page_text(page: pypdfium2.PdfPage) -> str:
    """The text layer of a page in reading order, with what is filled into its forms; "" if it has none.

    Lines that stand upright come first, then those turned by a quarter, and then those that lean. Text outside of the
    visible part of the page is left out. Raises: Refused if codes are missing for too many characters.
    """
    groups: dict[int, list[TextBox]] = {}
    for turn, box in _characters(page):
        groups.setdefault(turn, []).append(box)
    upright = (page.get_rotation() // 90) % 4
    for box in field_boxes(page):
        groups.setdefault(upright, []).append(box)
    order = sorted(groups, key=lambda turn: (turn < 0, (turn - upright) % 4))
    parts = [read_page(groups[turn]) if turn >= 0 else "".join(box.text for box in groups[turn]) for turn in order]
    text = "\n\n".join(
        " ".join(part.split()) if turn < 0 else part for turn, part in zip(order, parts, strict=True) if part.strip()
    )
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    unknown, seen = len(CONTROLS.findall(text.replace("\n", ""))), len("".join(text.split()))
    if unknown > MOST_UNKNOWN * seen:
        raise Refused("garbled text", f"{unknown} of {seen} characters have no code in this file")
    return CONTROLS.sub(lambda match: match[0] if match[0] == "\n" else "", text)


def _characters(page: pypdfium2.PdfPage) -> Iterator[tuple[int, TextBox]]:
    """Each character with the quarters by which it is turned against the clock (-1: it leans), upright.

    A box is as high as the type's size, from a quarter of it below the line of writing: fonts differ in what they call
    their height. The letters of a ligature stand in one box. What is outside of the page that is seen is left out.
    """
    layer, seen = page.get_textpage(), page.get_bbox()
    if (count := layer.count_chars()) > MOST_CHARACTERS:
        raise Refused("large page", f"{count:,} characters")
    last: tuple[tuple[float, float], int, TextBox] | None = None
    for number in range(count):
        glyph = _glyph(layer, number, seen)
        if glyph is None:
            continue
        origin, _, box = glyph
        if last is not None and last[0] == origin and not (box.text.isspace() or last[2].text.isspace()):
            last = origin, last[1], replace(last[2], text=last[2].text + box.text)
            continue
        if last is not None:
            yield last[1], last[2]
        last = glyph
    if last is not None:
        yield last[1], last[2]


def _glyph(
    layer: pypdfium2.PdfTextPage, number: int, seen: tuple[float, float, float, float]
) -> tuple[tuple[float, float], int, TextBox] | None:
    """Position, rotation and box of a character."""
    import pypdfium2.raw as raw

    code = raw.FPDFText_GetUnicode(layer, number)
    text = HYPHENS.get(code) or LIGATURES.get(code) or chr(code)
    edges, matrix, x, y = raw.FS_RECTF(), raw.FS_MATRIX(), ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(layer, number, x, y)
    origin = x.value, y.value
    if text.isspace():
        return origin, 0, TextBox(text, *origin, *origin)
    raw.FPDFText_GetLooseCharBox(layer, number, edges)
    west, south, east, north = seen
    left, top, right, bottom = edges.left, edges.top, edges.right, edges.bottom
    if right <= west or left >= east or bottom >= north or top <= south:
        return None
    box = TextBox(text, left - west, north - top, right - west, north - bottom)
    angle = -raw.FPDFText_GetCharAngle(layer, number)
    turn = round(angle / (math.pi / 2))
    if abs(angle - turn * math.pi / 2) > UPRIGHT:
        return origin, -1, box
    raw.FPDFText_GetMatrix(layer, number, matrix)
    size = raw.FPDFText_GetFontSize(layer, number) * math.hypot(matrix.c, matrix.d)
    box = _turned(box, turn % 4, east - west, north - south)
    point = TextBox("", x.value - west, north - y.value, x.value - west, north - y.value)
    line = _turned(point, turn % 4, east - west, north - south).bottom
    if not 0.5 * box.height <= size <= 2 * box.height:  # fonts made of pictures say anything at all
        size = box.height
    return origin, turn % 4, replace(box, top=line - 0.75 * size, bottom=line + 0.25 * size)


def _turned(box: TextBox, turn: int, width: float, height: float) -> TextBox:
    """The box as seen when the page is turned with the clock by `turn` quarters."""
    left, top, right, bottom = box.left, box.top, box.right, box.bottom
    if turn == 1:
        left, top, right, bottom = height - bottom, left, height - top, right
    elif turn == 2:
        left, top, right, bottom = width - right, height - bottom, width - left, height - top
    elif turn == 3:
        left, top, right, bottom = top, width - right, bottom, width - left
    return TextBox(box.text, left, top, right, bottom)
