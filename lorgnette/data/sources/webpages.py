"""Web pages as interleaved documents: their content in reading order, each image in its place and looked at.

Pages are read twice: once to count what stands on many pages of a site, and once to make rows of what does not.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorgnette.data.config import WebpagesConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.rejected import RejectedRow, RowOrRejected
from lorgnette.data.sources import interleaved
from lorgnette.data.sources.reading.download import in_order
from lorgnette.data.sources.reading.values import image_size
from lorgnette.data.sources.web.markup import Block, BlockPart, Picture, read_markup
from lorgnette.data.sources.web.pages import Page, Pages, resolve
from lorgnette.data.sources.web.repeats import RepeatCounter, key_of
from lorgnette.errors import ImageError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import open_image

_LONG = 60
"""Characters of a paragraph that is worth looking for a second time."""
SHORT_REPEATS = 0.1
"""Share of a site's pages that a shorter text (a heading, a term) must exceed to be furniture."""
LARGEST_SIDE = 20_000
"""Pixels; what is larger is no picture."""
MOST_HELD = 128 * 2**20
"""Bytes of a page's images; those behind them are left out."""
NAMED = 3
"""Parts left out that a rejected row names; it counts the others."""


def read(row: Mapping[str, Any], config: WebpagesConfig, name: str) -> Record:
    """As `interleaved.read`, with the alt text of each image behind it where the settings keep it.

    The rules (images in a row, a lone last image) look at the page's own text, without alt texts.
    """
    return interleaved.read(row, config, name, alt_text=config.alt_text)


@dataclass
class _Draft:
    """A page on its way to a row."""

    page: Page
    base: str
    blocks: list[Block]
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Reason -> what was left out for it."""

    @property
    def key(self) -> int:
        """Equal for pages with the same content."""
        links = (one.link for block in self.blocks for one in block.pictures)
        return key_of(*(block.text for block in self.blocks), *links)


def convert(config: WebpagesConfig) -> Iterator[RowOrRejected]:
    """A row of `images`, `texts`, `alts` and `url` for each page, images as the bytes of their files.

    Left out of a page, and counted in a RejectedRow, are paragraphs and images that stand on many pages of its
    site, those that the page has shown before, and images that are too small, too long or cannot be had. A page that
    says what another one has said, or nothing, becomes no row.
    """
    pages = Pages(config.path, config.fetch)
    drafts = _drafts(pages, config)
    for results in in_order(lambda draft: _finish(draft, pages, config), drafts):
        yield from results


def _finish(draft: _Draft | RejectedRow, pages: Pages, config: WebpagesConfig) -> list[RowOrRejected]:
    return [draft] if isinstance(draft, RejectedRow) else list(_row(draft, pages, config))


def _drafts(pages: Pages, config: WebpagesConfig) -> Iterator[_Draft | RejectedRow]:
    """Each page's content, without what stands on many of them."""
    census, seen = _census(pages), set()
    for page in pages.read():
        if isinstance(page, RejectedRow):
            yield page
            continue
        draft = _draft(page)
        if not draft.blocks:
            yield RejectedRow(page.file, page.place, "empty", f"{page.address}: nothing is left without its menus")
            continue
        if draft.key in seen:
            yield RejectedRow(page.file, page.place, "duplicate page", f"{page.address}: another page has this content")
            continue
        seen.add(draft.key)
        _leave_out_repeats(draft, census, config)
        yield draft


def _draft(page: Page) -> _Draft:
    markup = read_markup(page.content)
    return _Draft(page, markup.base, list(markup.blocks))


def _census(pages: Pages) -> RepeatCounter:
    """On how many different pages each paragraph of a site, and each image of all sites, stands."""
    census, seen = RepeatCounter(), set()
    for page in pages.read(images=True):
        if isinstance(page, Page):
            draft = _draft(page)
            if draft.key in seen:
                continue
            seen.add(draft.key)
            keys = {_paragraph(page, block) for block in draft.blocks if block.text}
            keys |= {_image(draft, one) for block in draft.blocks for one in block.pictures}
            for key in (key_of("site", page.site), *keys):
                census.add(key)
    return census


def _paragraph(page: Page, block: Block) -> int:
    return key_of("text", page.site, block.text)


def _image(draft: _Draft, picture: Picture) -> int:
    try:
        address = resolve(draft.page, picture.link, draft.base)
    except Refused:
        address = picture.link
    return key_of("image", "" if "://" in address else draft.page.site, address)


def _leave_out_repeats(draft: _Draft, census: RepeatCounter, config: WebpagesConfig) -> None:
    blocks, said = [], set()
    short = max(config.most_repeats, SHORT_REPEATS * census[key_of("site", draft.page.site)])
    for block in draft.blocks:
        text, key = block.text, _paragraph(draft.page, block)
        parts = list(block.parts)
        if text and census[key] > (config.most_repeats if len(text) >= _LONG else short):
            draft.left_out["repeated text"].append(text[:40])
            parts = [part for part in parts if isinstance(part, Picture)]
        elif len(text) >= _LONG and key in said:
            draft.left_out["duplicate text"].append(text[:40])
            parts = [part for part in parts if isinstance(part, Picture)]
        said.add(key)
        blocks.append(Block(parts, block.kind))
    for block in blocks:
        for one in block.pictures:
            if census[_image(draft, one)] > config.most_image_repeats:
                draft.left_out["repeated image"].append(one.link[:80])
                block.parts.remove(one)
    draft.blocks = [block for block in blocks if block.parts]


def _row(draft: _Draft, pages: Pages, config: WebpagesConfig) -> Iterator[RowOrRejected]:
    shown: set[bytes] = set()
    content: list[tuple[BlockPart, bytes | None]] = []
    last, held = "", 0
    for block in draft.blocks:
        before = len(content)
        if content:
            content.append(("\n" if block.kind == last == "item" else "\n\n", None))
        for part in block.parts:
            if isinstance(part, str):
                content.append((part, None))
                continue
            try:
                if held > MOST_HELD:
                    raise Refused("large page", "")
                image = _looked_at(draft, part, pages, config, shown)
                held += len(image)
                content.append((part, image))
            except Refused as refused:
                detail = part.link[:80] if part.link in refused.detail else f"{part.link[:80]} ({refused.detail})"
                draft.left_out[refused.reason].append(detail if refused.reason != "not fetched" else refused.detail)
        if len(content) == before + 1 and content[before][0] in ("\n", "\n\n"):
            content.pop()  # nothing of the block is left
        else:
            last = block.kind
    row = _interleaved(content)
    if any(row["texts"]) or any(row["images"]):
        yield {**row, "url": draft.page.address}
    else:
        yield RejectedRow(draft.page.file, draft.page.place, "empty", f"{draft.page.address}: all of it was left out")
    for reason, parts in draft.left_out.items():
        more = f" and {len(parts) - NAMED:,} more" if len(parts) > NAMED else ""
        detail = f"{draft.page.address}: {', '.join(parts[:NAMED])}{more}"
        yield RejectedRow(draft.page.file, draft.page.place, reason, detail, 0, len(parts))


def _looked_at(draft: _Draft, picture: Picture, pages: Pages, config: WebpagesConfig, shown: set[bytes]) -> bytes:
    """The bytes of an image that can be learned from. Raises: Refused."""
    content = pages.image(draft.page, picture.link, draft.base)
    digest = hashlib.sha256(content).digest()
    if digest in shown:
        raise Refused("duplicate image", "")
    width, height = image_size(content, "image", ImageConfig().max_pixels)
    short, long = sorted((width, height))
    if short < config.smallest_side:
        raise Refused("small image", f"{width} x {height}")
    if long > config.most_aspect * short or long > LARGEST_SIDE:
        raise Refused("long image", f"{width} x {height}")
    try:
        open_image(content)
    except ImageError as error:
        raise Refused("unreadable image", str(error)) from None
    shown.add(digest)
    return content


def _interleaved(content: list[tuple[BlockPart, bytes | None]]) -> dict[str, list[Any]]:
    """Lists of equal length: images, texts (those between two images in one), and the images' alt texts."""
    images: list[Any] = []
    texts: list[str | None] = []
    alts: list[str | None] = []
    for part, image in content:
        if isinstance(part, Picture):
            images.append({"bytes": image, "path": None})
            texts.append(None)
            alts.append(part.alt or None)
        elif texts and texts[-1] is not None:
            texts[-1] += part.lstrip(" ") if texts[-1][-1:].isspace() else part
        else:
            images.append(None)
            texts.append(part)
            alts.append(None)
    kept = [
        (image, text if text is None else text.strip(" \n"), alt)
        for image, text, alt in zip(images, texts, alts, strict=True)
        if image is not None or (text and text.strip())
    ]
    return {
        "images": [image for image, _, _ in kept],
        "texts": [text for _, text, _ in kept],
        "alts": [alt for _, _, alt in kept],
    }
