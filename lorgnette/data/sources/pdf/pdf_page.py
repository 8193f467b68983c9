"""Pages of PDF files drawn within limits of size and time, and what is filled into their forms."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.pdf.layout import TextBox

if TYPE_CHECKING:
    import PIL.Image
    import pypdfium2

MOST_PAGE_PIXELS = 25_000_000
"""A page that would have more at the settings' dpi (a poster) is rendered smaller."""
LONGEST_SIDE = 20_000
"""Pixels of a page's longer side, beyond which it is rendered smaller too."""
DRAW_SECONDS = 30.0
"""For drawing one page. A page of a few kilobytes can ask for hours."""
MOST_VALUE = 20_000
"""Characters of a form field's value that are read."""
TYPE_SIZE = 10.0
"""Points of the letters in a field, where it is not lower than that."""


def draw_page(page: pypdfium2.PdfPage, dpi: float, grey: bool) -> PIL.Image.Image:
    """The page with its filled form. Raises: Refused for a page of no size, or one that takes too long."""
    width, height = page.get_size()
    limits = dpi / 72, math.sqrt(MOST_PAGE_PIXELS / max(width * height, 1)), LONGEST_SIDE / max(width, height, 1)
    scale = min(limits)
    if not (width > 0 and height > 0 and min(width, height) * scale >= 1):
        raise Refused("page size", f"the page is {width:g} x {height:g} points")
    bitmap = _drawn(page, math.ceil(width * scale), math.ceil(height * scale), grey)
    image: PIL.Image.Image = bitmap.to_pil().copy()
    bitmap.close()
    return image


def _drawn(page: pypdfium2.PdfPage, width: int, height: int, grey: bool) -> Any:
    """The bitmap that `page.render` gives, drawn step by step so that it can be given up."""
    import pypdfium2
    import pypdfium2.raw as raw

    end = time.monotonic() + DRAW_SECONDS
    kind = type(raw.IFSDK_PAUSE().NeedToPauseNow)
    pause = raw.IFSDK_PAUSE(version=1, NeedToPauseNow=kind(lambda _: time.monotonic() > end))
    form = raw.FPDFBitmap_Gray if grey else raw.FPDFBitmap_BGR
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, form)
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
    place = bitmap, page, 0, 0, width, height, 0, raw.FPDF_ANNOT | (raw.FPDF_GRAYSCALE if grey else 0)
    status = raw.FPDF_RenderPageBitmap_Start(*place, pause)
    raw.FPDF_RenderPage_Close(page)
    if status == raw.FPDF_RENDER_TOBECONTINUED:
        bitmap.close()
        raise Refused("slow page", f"it takes longer than {DRAW_SECONDS:g} seconds to draw")
    if page.formenv:
        raw.FPDF_FFLDraw(page.formenv, *place)
    return bitmap


def field_values(page: pypdfium2.PdfPage) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    """Values of the text fields and lists of a page, each with its left, bottom, right and top in points.

    Fields that are not shown, and passwords, are left out; ticks are seen in the picture alone.
    """
    import pypdfium2.raw as raw

    if not page.formenv:
        return
    for number in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_WIDGET:
                yield from _field_value(page.formenv, annotation)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _field_value(form: Any, annotation: Any) -> Iterator[tuple[str, tuple[float, float, float, float]]]:
    import pypdfium2.raw as raw

    shown = not raw.FPDFAnnot_GetFlags(annotation) & (raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW)
    kinds = raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    secret = kind == kinds[0] and raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & raw.FPDF_FORMFLAG_TEXT_PASSWORD
    edges = raw.FS_RECTF()
    if not shown or kind not in kinds or secret or not raw.FPDFAnnot_GetRect(annotation, edges):
        return
    size = min(raw.FPDFAnnot_GetFormFieldValue(form, annotation, None, 0), 2 * MOST_VALUE)
    buffer = (ctypes.c_ushort * (size // 2 + 1))()
    raw.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, size)
    text = bytes(buffer)[:size].decode("utf-16-le", "replace").rstrip("\x00").strip()
    if text:
        yield text, (edges.left, edges.bottom, edges.right, edges.top)


def field_boxes(page: pypdfium2.PdfPage) -> Iterator[TextBox]:
    """The characters of filled fields where they are seen, so that they are read in their place on the page.

    A box is measured from the left and top of the page, as those of its own text are.
    """
    west, _, _, north = page.get_bbox()
    for text, (left, bottom, right, top) in field_values(page):
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        size = min(TYPE_SIZE, (top - bottom) / len(lines))
        for number, line in enumerate(lines):
            step = min(size / 2, (right - left) / max(len(line), 1))
            upper = north - top + number * size if len(lines) > 1 else north - (top + bottom + size) / 2
            for place, letter in enumerate(line):
                start = left - west + place * step
                yield TextBox(letter, start, upper, start if letter.isspace() else start + step, upper + size)
