"""The page of `data inspect`: documents with their pictures, tokens and what is supervised of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.data.inspect.preview import Document, Pack, Preview
from lorgnette.data.inspect.token_text import TokenDecoder, runs
from lorgnette.data.inspect.unpatchify import MOST_SIDE, Size, Unpatchified
from lorgnette.files import is_own_page, replace_text
from lorgnette.report.charts import bins, bubble_chart, histogram, tenths
from lorgnette.report.html import render_page
from lorgnette.report.thumbnails import data_uri

_MOST_TOKENS = 4096
"""Tokens of one document that the page spells; the others are counted."""
_MOST_BYTES = 24 * 2**20
"""Bytes of all pictures in a page; documents after that are counted and not shown."""
LOSSLESS = 160
"""Pixels of the longest side up to which a picture is stored exactly."""
_SIZES = (96, 320)
"""Pixels between which the longest side of a picture is on the screen."""


@dataclass(frozen=True)
class Frame:
    """A picture in the page."""

    uri: str
    picture: Unpatchified
    label: str
    original: Size | None
    width: int
    """Pixels on the screen."""


@dataclass
class _Budget:
    """Bytes of pictures that the page may still hold."""

    left: int
    skipped: int = 0

    def frames(self, document: Document) -> list[Frame] | None:
        """The document's pictures; None if they no longer fit."""
        if self.left < 0:  # nothing is encoded that would not be shown
            self.skipped += 1
            return None
        frames = []
        for number, one in enumerate(document.pictures):
            if one.pixels is None:
                return None
            uri = data_uri(one.pixels, lossless=max(one.pixels.size) <= LOSSLESS)
            self.left -= len(uri)
            image, part = document.parts[number]
            label = f"image {image + 1}" + (f", {part}" if part else "")
            original = document.originals[image] if document.originals else None
            frames.append(Frame(uri, one, label, original, _width(one)))
        if self.left < 0:
            self.skipped += 1
            return None
        return frames


def write_page(path: str | Path, look: Preview, decoder: TokenDecoder) -> Path:
    """Write the page; return its path. Raises: DiskError if it cannot be written, or is a file of somebody else."""
    replace_text(path, render(look, decoder), is_own_page)
    return Path(path)


def render(look: Preview, decoder: TokenDecoder) -> str:
    """The page as HTML."""
    budget = _Budget(_MOST_BYTES)
    count = len(look.sources)
    documents = look.documents
    packs = [_pack(look, pack, decoder, budget) for pack in look.packs]
    shapes = [(one.columns, one.rows) for each in documents for one in each.pictures]
    lengths = bins([(one.tokens, one.source) for one in documents], count)
    values: dict[str, Any] = {
        "total": look.total,
        "look": look,
        "packs": packs,
        "hidden": look.hidden + budget.skipped,
        "measured": [_measured(look, number) for number in range(count)],
        "lengths": histogram(lengths, "documents", "tokens"),
        "supervised": histogram(tenths(_supervised_shares(documents), count), "documents", "of tokens supervised"),
        "shapes": bubble_chart(shapes, ("columns of patches", "rows of patches"), "images"),
        "common": Counter(shapes).most_common(12),
        "most_side": MOST_SIDE,
        "lossless": LOSSLESS,
    }
    return render_page("inspect.html.jinja", values)


def _width(picture: Unpatchified) -> int:
    """Return a picture's width on the screen: small ones are enlarged by a whole number, large ones made to fit."""
    width, height = picture.size
    longest = max(width, height)
    least, most = _SIZES
    zoom = -(-least // longest) if longest < least else min(1.0, most / longest)
    return max(1, round(width * zoom))


def _supervised_shares(documents: list[Document]) -> list[tuple[float, int]]:
    return [(one.supervised_tokens / one.tokens if one.tokens else 0.0, one.source) for one in documents]


def _measured(look: Preview, source: int) -> float:
    """The share that a source has in fact, in what the stage's weights are shares of."""
    key = {"samples": "documents"}.get(look.measure, look.measure)
    whole = getattr(look.total, key)
    part: int = getattr(look.totals[source], key)
    return part / whole if whole else 0.0


def _pack(look: Preview, pack: Pack, decoder: TokenDecoder, budget: _Budget) -> dict[str, Any]:
    """Values of the template for one pack."""
    others = [other for other in look.packs if other.step == pack.step]
    token_room = look.most_tokens or max(other.total.tokens for other in others) or 1
    patch_room = look.most_patches or max(other.total.patches for other in others) or 1
    starts = pack.starts
    return {
        "pack": pack,
        "tokens": [(one, place, one.tokens / token_room) for place, one in enumerate(pack.documents)],
        "patches": [(one, place, one.patches / patch_room) for place, one in enumerate(pack.documents)],
        "documents": [
            _document(pack.documents[place], place, starts[place], decoder, budget) for place in sorted(pack.chosen)
        ],
    }


def _document(one: Document, place: int, start: int, decoder: TokenDecoder, budget: _Budget) -> dict[str, Any]:
    frames = budget.frames(one)
    shown = frames is not None
    chips = decoder.chips(one.tokens_T, one.loss_mask_T, one.visual_tokens, _MOST_TOKENS)
    spelt = runs(chips) if shown else []
    return {
        "document": one,
        "place": place,
        "start": start,
        "frames": frames,
        "runs": spelt if shown else None,
        "unspelt": max(0, one.tokens - sum(len(chip.ids) for _, chips in spelt for chip in chips)),
    }
