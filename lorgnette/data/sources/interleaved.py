"""Web documents as OBELICS has them: lists `images` and `texts` of equal length, with one of the two at each place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from lorgnette.data.config import InterleavedConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.values import cut_text, read_image, read_list
from lorgnette.sample import Image, Segment, Text

COLUMNS = ("images", "texts")

END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
"""What OBELICS writes where a page changes its topic (its paper, appendix A.1.2)."""
MOST_IMAGES_OF_UNIT = 4
"""Images that stay in one unit with the text behind them; where more stand in a row, those before make units."""


def read(row: Mapping[str, Any], config: InterleavedConfig, name: str) -> Record:
    """A document in reading order, all of its text learned.

    A unit is a text of at most about 2,000 characters with the images before it, so that a cut parts no image from its
    text. A place with neither image nor text is nothing; other columns (`metadata`) are not looked at.

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
    return Record(tuple(_units(segments)), meta={"name": name, "source": config.title})


def _segments(row: Mapping[str, Any]) -> Iterator[Image | Text]:
    images, texts = read_list(row, "images"), read_list(row, "texts")
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
        elif text and text.strip():
            text = text.replace(END_OF_DOCUMENT, "\n\n")
            if isinstance(before, Text) and not (before.text[-1].isspace() or text[0].isspace()):
                text = "\n\n" + text  # neighbouring texts are paragraphs, and would be joined without a space
            before = Text(text, learn=True)
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
        yield (*waiting, Text(first, learn=True))
        waiting = []
        for part in others:
            yield (Text(part, learn=True),)
    for image in waiting:
        yield (image,)
