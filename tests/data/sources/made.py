"""Files of every kind, made by code: pictures, PDF, HTML, WARC, parquet in the public column layouts."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

Line = tuple[float, float, str]
"""From the left and from the bottom, in points, and the text."""


def picture(width: int = 160, height: int = 160, seed: int = 0, kind: str = "PNG") -> bytes:
    """The bytes of an image file; another seed, another picture."""
    tiles = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    content = io.BytesIO()
    PIL.Image.fromarray(tiles).resize((width, height), PIL.Image.Resampling.NEAREST).save(content, kind)
    return content.getvalue()


def parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=3)
    return path


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pdf(pages: Sequence[Sequence[Line]], size: float = 10, extra: str = "", content: str = "") -> bytes:
    """Pages of 612 x 792 points with lines of Helvetica, in the order in which they are given.

    extra: further entries of every page, for example `/Rotate 90`; content: further drawing on every page.
    """
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    kids = []
    for page in pages:
        stream = f"BT /F1 {size} Tf ET {content}\n".encode()
        for left, bottom, text in page:
            escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            stream += f"BT /F1 {size} Tf 1 0 0 1 {left} {bottom} Tm ({escaped}) Tj ET\n".encode("cp1252")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects) + 2} 0 R {extra}"
            " /Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    file, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(file))
    return file + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


PARAGRAPH = "The lighthouse of the northern cape was built of red granite, and its lamp could be seen from forty miles."


def html(title: str, *body: str, paragraphs: int = 1) -> str:
    """A page with a heading, paragraphs that no other title's page has, and what else is given."""
    own = "".join(f"<p>{PARAGRAPH} So says {title}, page {number}.</p>" for number in range(paragraphs))
    return f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>{own}{''.join(body)}</body>"


def record(url: str, kind: str, body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """One WARC record of a server's answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode()
    about = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
        "WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789abc>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(head) + len(body)}\r\n\r\n"
    ).encode()
    return about + head + body + b"\r\n\r\n"


def warc(records: Sequence[bytes], compress: bool = True) -> bytes:
    return b"".join(gzip.compress(one) if compress else one for one in records)
