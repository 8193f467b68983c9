"""Scenes of built-in drawings: a row says which drawings lie where and what is asked of them; reading it composes them.

`corpus/` writes such rows; anybody may, in any form of rows. A picture is a pure function of its row and the drawings.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import PIL.Image
import PIL.ImageColor

from lorgnette.data.builtin.drawings import SPLITS, Drawings, drawings
from lorgnette.data.config import ScenesConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RowOrRejected
from lorgnette.data.sources.instruct import exchanges_of, read_texts
from lorgnette.data.sources.reading import schemas
from lorgnette.data.sources.reading.row_files import converted_row, is_parquet, parquet_or_others
from lorgnette.data.sources.reading.unread import Watch
from lorgnette.data.sources.reading.values import cut_text, missing, read_list
from lorgnette.sample import Image, Text
from lorgnette.untrusted import quoted

_COLUMNS = tuple(schemas.SCENES.names)
MOST_PIXELS, MOST_DRAWINGS = 2**22, 64
"""Pixels of a scene's canvas, and drawings on it, at most: beyond, the row is refused."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class DrawingAt:
    """A drawing of a table, by its number there, and where it is pasted."""

    table: Drawings
    number: int
    box: Box
    mirrored: bool = False


def compose(width: int, height: int, background: tuple[int, int, int], placed: Iterable[DrawingAt]) -> PIL.Image.Image:
    """The picture of a scene: drawings pasted in order, each scaled to its box. Returns RGB, `width` x `height`."""
    canvas = PIL.Image.new("RGB", (width, height), background)
    for one in placed:
        left, top, right, bottom = one.box
        picture = one.table.resized(one.number, right - left, bottom - top)
        if one.mirrored:
            picture = picture.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        canvas.paste(picture, (left, top), picture)
    return canvas


def picture_of(row: Mapping[str, Any]) -> PIL.Image.Image:
    """The picture that a row specifies. Raises: Refused if a drawing is unknown or does not lie on the canvas."""
    width, height = _number(row, "width"), _number(row, "height")
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise Refused("size", f"a canvas of {width} x {height} pixels; use 1 to {MOST_PIXELS:,} pixels in all")
    try:
        red, green, blue = PIL.ImageColor.getrgb(str(row.get("background") or "#ffffff"))[:3]
    except ValueError:
        raise Refused("wrong type", f"'background' is {quoted(repr(row['background']))}, not #rrggbb") from None
    return compose(width, height, (red, green, blue), _placed(row, width, height))


def _placed(row: Mapping[str, Any], width: int, height: int) -> list[DrawingAt]:
    ids, edges = read_list(row, "drawings"), read_list(row, "boxes")
    mirrored = read_list(row, "mirrored", needed=False)
    if not 0 < len(ids) <= MOST_DRAWINGS or len(edges) != 4 * len(ids):
        raise Refused("boxes", f"{len(ids)} drawings and {len(edges)} edges of boxes: give four for each drawing")
    found = []
    for number, name in enumerate(ids):
        left, top, right, bottom = box = edges[4 * number : 4 * number + 4]
        if any(type(edge) is not int for edge in box) or not (
            0 <= left < right <= width and 0 <= top < bottom <= height
        ):
            raise Refused("boxes", f"the box of drawing {number} is {quoted(repr(box))}, on {width} x {height} pixels")
        if not isinstance(name, str) or name not in _places():
            raise Refused("no drawing", f"drawing {number} is {quoted(repr(name))}, which the package has not")
        table, place = _places()[name]
        found.append(DrawingAt(drawings(table), place, (left, top, right, bottom), number in mirrored))
    return found


@cache
def _places() -> dict[str, tuple[str, int]]:
    """Split and number of every drawing by its id."""
    return {row.id: (split, number) for split in SPLITS for number, row in enumerate(drawings(split))}


def _number(row: Mapping[str, Any], column: str) -> int:
    value = row.get(column)
    if value is None:
        raise missing(row, column)
    if type(value) is not int:
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not a number of pixels")
    return value


def read(row: Mapping[str, Any], config: ScenesConfig, name: str) -> Record:
    """A conversation about a composed scene, of which only the answers are learned; or the scene and its `caption`.

    Each question with its answer is a unit, and the picture is the prefix: every piece shows it.

    Raises: Refused if the scene cannot be composed, or there is nothing to learn.
    """
    prefix, meta = (Image(_file_of(picture_of(row))),), {"name": name, "source": config.title}
    if isinstance(caption := row.get("caption"), str) and caption.strip():
        units = tuple((Text(part, supervised=True),) for part in cut_text(caption))
        return Record(units, prefix, meta=meta)
    turns, doubts = exchanges_of(*read_texts(row, has_images=True))
    return Record(turns, prefix, meta=meta, doubts=tuple(doubts))


def _file_of(picture: PIL.Image.Image) -> bytes:
    """The picture as a file without compression, which is made and opened in a tenth of a millisecond."""
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def must_convert(config: ScenesConfig) -> bool:
    """Return whether rows are in other files than parquet."""
    return not all(map(is_parquet, parquet_or_others(config.path)))


def convert(config: ScenesConfig) -> Iterator[RowOrRejected]:
    """Every row as it is, from whatever form of rows."""
    watch = Watch(config, _COLUMNS)
    for path, place, row in watch.rows(parquet_or_others(config.path)):
        yield converted_row(path, place, row, lambda found: {key: found.get(key) for key in _COLUMNS})
    yield from watch.refusals()
