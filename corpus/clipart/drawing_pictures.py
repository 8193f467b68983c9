"""One SVG drawing of the package: its metadata, its picture, and what can be measured on the picture."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

LONGEST, SHORTEST = 160, 24
"""Sides of a kept picture, in pixels."""
PUBLIC_DOMAIN = {
    "http://web.resource.org/cc/PublicDomain",
    "http://creativecommons.org/licenses/publicdomain/",
    "Public Domain",
}


class Unusable(Exception):
    """Refusal of a drawing; the message is the reason."""


def read_metadata(svg: bytes) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Title, keywords and creators from the RDF. Raises Unusable unless every licence in it is the public domain."""
    if b"<!ENTITY" in svg:
        raise Unusable("unreadable: defines XML entities")
    try:
        root = xml.etree.ElementTree.fromstring(svg)
    except (xml.etree.ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unusable("unreadable: not well-formed XML") from error
    licences: list[str] = []
    titles: list[str] = []
    keywords: list[str] = []
    creators: list[str] = []
    for element in root.iter():
        tag = _local(element.tag)
        if tag == "license":
            licences += [value for key, value in element.attrib.items() if _local(key) == "resource"]
        elif tag == "Work":
            titles += [" ".join(child.text.split()) for child in element if _local(child.tag) == "title" and child.text]
        elif tag == "subject":
            keywords += [
                " ".join(item.text.split()).lower() for item in element.iter() if _local(item.tag) == "li" and item.text
            ]
        elif tag in ("creator", "rights"):
            creators += [
                " ".join(item.text.split()) for item in element.iter() if _local(item.tag) == "title" and item.text
            ]
    if not licences or not set(licences) <= PUBLIC_DOMAIN:
        raise Unusable("licence: not stated to be the public domain in its RDF")
    title = next((title for title in titles if title), "")
    return title, tuple(dict.fromkeys(word for word in keywords if word)), tuple(dict.fromkeys(creators))


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def render(svg: bytes, path: Path) -> PIL.Image.Image:
    """The drawing as RGBA, cropped to its visible box, its longest side `LONGEST`. Raises Unusable."""
    if len(svg) > 1_500_000:
        raise Unusable("unreadable: more than 1.5 MB of SVG")
    try:
        box = _visible_box(_draw(svg, path, 256))
        longest = max(box[2] - box[0], box[3] - box[1])
        large = _draw(svg, path, round(256 * min(2 * LONGEST / longest, 16)))  # twice the size, to be shrunk smoothly
    except Unusable:
        raise
    except Exception as error:
        raise Unusable("unreadable: cairosvg cannot render it") from error
    picture = large.crop(_visible_box(large))
    ratio = LONGEST / max(picture.size)
    width, height = (max(1, round(side * ratio)) for side in picture.size)
    if min(width, height) < SHORTEST:
        raise Unusable("too thin")
    return picture.resize((width, height), PIL.Image.Resampling.LANCZOS)


def render_alone(path: Path) -> PIL.Image.Image:
    """`render` in a process of its own. Text needs it: cairo's glyphs depend on those it has drawn before."""
    done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, check=False)
    if done.returncode:
        raise Unusable(done.stderr.decode().strip().rpartition("\n")[2])
    return PIL.Image.open(io.BytesIO(done.stdout))


def has_text(svg: bytes) -> bool:
    """Return whether the drawing has text, which is drawn in fonts of the machine."""
    return re.search(rb"<(\w+:)?text\b", svg) is not None


def _draw(svg: bytes, path: Path, width: int) -> PIL.Image.Image:
    """The whole page, `width` pixels wide."""
    import cairosvg  # needs the system's cairo, which whoever only reads this module need not have

    png = cairosvg.svg2png(bytestring=svg, url=str(path), output_width=width)
    return PIL.Image.open(io.BytesIO(png)).convert("RGBA")


def _visible_box(picture: PIL.Image.Image) -> tuple[int, int, int, int]:
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 24 else 0).getbbox()
    if box is None:
        raise Unusable("empty")
    return box


def encode(picture: PIL.Image.Image) -> bytes:
    """The bytes that are stored: WebP with alpha, lossy colour."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=80, method=6, alpha_quality=60)
    return out.getvalue()


def ink(rgba: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """Visible ink on white paper: the mean over the box of alpha times distance from white, 0 to 1."""
    distance = (255 - rgba[..., :3].astype(np.float64)).max(axis=-1) / 255
    return float((distance * rgba[..., 3] / 255).mean())


def pieces(rgba: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    """Number of separate shapes visible on white paper: patches that hold a twentieth of the ink or more."""
    distance = (255 - rgba[..., :3].astype(np.float64)).max(axis=-1) / 255 * (rgba[..., 3] / 255)
    thumbnail = PIL.Image.fromarray((distance * 255).astype(np.uint8))
    thumbnail.thumbnail((40, 40), PIL.Image.Resampling.BOX)
    left = {(int(y), int(x)) for y, x in np.argwhere(np.asarray(thumbnail) > 16)}
    sizes = []
    while left:
        edge = [left.pop()]
        size = 0
        while edge:
            y, x = edge.pop()
            size += 1
            near = {(y + down, x + across) for down in (-1, 0, 1) for across in (-1, 0, 1)} & left
            left -= near
            edge += near
        sizes.append(size)
    return sum(size >= sum(sizes) / 20 for size in sizes)


if __name__ == "__main__":
    try:
        render(Path(sys.argv[1]).read_bytes(), Path(sys.argv[1])).save(sys.stdout.buffer, "PNG")
    except Unusable as reason:
        sys.exit(str(reason))
