"""Web documents as OBELICS has them: lists `images` and `texts` of equal length, with one of the two at each place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from lorgnette.data.config import InterleavedConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources.reading.columns import as_list, is_absent, is_blank, list_in
from lorgnette.data.sources.reading.download import in_order
from lorgnette.data.sources.reading.links import holds_links
from lorgnette.data.sources.reading.row_files import converted_row, is_parquet, parquet_or_others, placed
from lorgnette.data.sources.reading.unread import Watch
from lorgnette.data.sources.reading.values import cut_text, read_image, stored
from lorgnette.sample import Image, Segment, Text

_COLUMNS = ("images", "texts")

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
"""Marker that OBELICS writes where a page changes its topic (its paper, appendix A.1.2)."""
FILE_NAME = re.compile(r"[\w ().-]+\.(jpe?g|png|gif|webp|svg|bmp|tiff?)")
MOST_IMAGES_OF_UNIT = 4
"""Images that stay in one unit with the text behind them; where more stand in a row, those before make units."""


def read(row: Mapping[str, Any], config: InterleavedConfig, name: str, alt_text: bool = False) -> Record:
    """A document in reading order, all of its text learned.

    A unit is a text of at most about 2,000 characters with the images before it, so that a cut parts no image from its
    text. A place with neither image nor text is nothing; other columns (`metadata`) are not looked at.
    alt_text: put the text of the list `alts` behind each image, if the texts beside it do not say the same.

    Raises: Refused for lists that do not match, a place with both, and documents that the settings refuse.
    """
    segments = list(_segments(row))
    _refuse_runs(segments, config.most_images_in_a_row)
    if config.drop_lone_last_image:
        while segments and isinstance(segments[-1], Image):
            segments.pop()
    if config.need_both:
        _need_both(segments)
    if not segments:
        raise Refused("empty", "the document has neither image nor text")
    if alt_text:
        segments = list(_with_alts(segments, _alts(row)))
    return Record(tuple(_units(segments)), meta={"name": name, "source": config.title})


def must_convert(config: InterleavedConfig) -> bool:
    """Return whether rows are in other files than parquet, or images are links."""
    parquet = all(map(is_parquet, parquet_or_others(config.path)))
    return not parquet or holds_links(config.path, ("images",))


def convert(config: InterleavedConfig) -> Iterator[RowOrRejected]:
    """Every document with the bytes of its images. A link that leads nowhere leaves its place empty, and is said."""
    watch = Watch(config, _COLUMNS)
    rows = watch.rows(parquet_or_others(config.path))
    for results in in_order(lambda item: list(_fetched(*item)), rows):
        yield from results
    yield from watch.refusals()


def _fetched(path: str, place: str, row: RowOrRejected) -> Iterator[RowOrRejected]:
    lost: list[Refused] = []
    made = converted_row(path, place, row, lambda found: _stored(placed(found, path), lost))
    yield made
    for one in lost if not isinstance(made, RejectedRow) else ():
        yield RejectedRow(path, place, one.reason, one.detail, 0, 1)


def _stored(row: Mapping[str, Any], lost: list[Refused]) -> dict[str, Any]:
    """A document with the bytes of its images. Those that cannot be had are added to `lost`."""
    images: list[Any] = []
    texts = [None if is_absent(text) else text for text in list_in(row, "texts")]
    for number, image in enumerate(list_in(row, "images")):
        where = f"image {number}"
        try:
            images.append(None if is_absent(image) else stored(read_image(image, row, where), where))
        except Refused as refused:
            images.append(None)
            lost.append(refused)
    if any(text is not None and not isinstance(text, str) for text in texts):
        raise Refused("wrong type", "'texts' holds something else than strings")
    return {"images": images, "texts": texts}


def _alts(row: Mapping[str, Any]) -> list[str]:
    """The alt text of each image of the row; "" for none."""
    images, alts = list_in(row, "images"), as_list(row.get("alts")) or []
    alts += [None] * (len(images) - len(alts))
    shown = (alt for image, alt in zip(images, alts, strict=False) if not is_absent(image))
    return [alt if isinstance(alt, str) else "" for alt in shown]


def _with_alts(segments: list[Image | Text], alts: list[str]) -> Iterator[Image | Text]:
    """The segments with each image's alt text behind it, before the text that follows."""
    left, waiting = iter(alts), ""
    for place, one in enumerate(segments):
        if isinstance(one, Text):
            yield Text(f"{waiting}\n\n{one.text.lstrip()}", supervised=True) if waiting else one
            waiting = ""
            continue
        if waiting:
            yield Text(waiting, supervised=True)
        yield one
        waiting = next(left)
        beside = segments[max(0, place - 1) : place] + segments[place + 1 : place + 2]
        if not _says_more(waiting, [text.text for text in beside if isinstance(text, Text)]):
            waiting = ""
    if waiting:
        yield Text(waiting, supervised=True)


def _says_more(alt: str, beside: list[str]) -> bool:
    """Return whether an alt text is no file's name, and not what the texts beside the image say."""
    plain = " ".join(alt.split()).casefold()
    said = any(plain in " ".join(text.split()).casefold() for text in beside)
    return sum(letter.isalpha() for letter in plain) > 1 and not said and not FILE_NAME.fullmatch(plain)


def _segments(row: Mapping[str, Any]) -> Iterator[Image | Text]:
    images = [None if is_absent(one) else one for one in list_in(row, "images")]
    texts = [None if is_absent(one) else one for one in list_in(row, "texts")]
    if len(images) != len(texts):
        raise Refused("layout", f"{len(images)} images and {len(texts)} texts; the lists must be of equal length")
    before: Image | Text | None = None
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        if image is not None and text is not None:
            raise Refused("layout", f"place {place} holds an image and a text; one of the two must be null")
        if text is not None and not isinstance(text, str):
            raise Refused("wrong type", f"text {place} is a {type(text).__name__}, not a string")
        if image is not None:
            before = read_image(image, row, f"image {place}")
            yield before
        elif text is not None and not is_blank(text.replace(END_OF_DOCUMENT, "")):
            text = text.replace(END_OF_DOCUMENT, "\n\n")
            if isinstance(before, Text) and not (before.text[-1].isspace() or text[0].isspace()):
                text = "\n\n" + text  # neighbouring texts are paragraphs, and would be joined without a space
            before = Text(text, supervised=True)
            yield before


def _refuse_runs(segments: list[Image | Text], most: int | None) -> None:
    runs = [len(list(run)) for is_image, run in groupby(segments, lambda one: isinstance(one, Image)) if is_image]
    if most is not None and max(runs, default=0) > most:
        raise Refused("images in a row", f"{max(runs)} images without text between them; at most {most} are accepted")


def _need_both(segments: list[Image | Text]) -> None:
    if not any(isinstance(one, Image) for one in segments):
        raise Refused("no image", "the document has no image that a text follows")
    if not any(isinstance(one, Text) for one in segments):
        raise Refused("no text", "the document has no text")


def _units(segments: list[Image | Text]) -> Iterator[tuple[Segment, ...]]:
    waiting: list[Segment] = []
    for one in segments:
        if isinstance(one, Image):
            if len(waiting) == MOST_IMAGES_OF_UNIT:
                yield (waiting.pop(0),)
            waiting.append(one)
            continue
        first, *others = cut_text(one.text)
        yield (*waiting, Text(first, supervised=True))
        waiting = []
        for part in others:
            yield (Text(part, supervised=True),)
    for image in waiting:
        yield (image,)
