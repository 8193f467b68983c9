"""Reading order of a page: characters put into words, runs, columns, lines and paragraphs by where they stand.

A PDF says where each character is drawn, in the order in which it was drawn; that need not be the order of reading.
Coordinates are in points from the top left of the page, upright: y grows downwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import numpy as np

WORD_GAP = 0.2
"""Heights of a character between two of them that belong to different words."""
RUN_GAP = 0.75
"""Heights of a character between two words that do not stand in one run of text: table cells, columns."""
COLUMN_WIDTH = 8.0
"""Heights of a character that half of the runs of a column are at least wide; what is narrower is a table's."""
COLUMN_LINES = 4
"""Lines that stand side by side, at least, where a page has columns."""
TALL = 1.5
"""Heights of a character beyond which another one is a sign that reaches over lines."""
PARAGRAPH_GAP = 0.35
"""Heights of a line by which the space before a paragraph exceeds that between lines."""
INDENT = 0.7
"""Heights of a line by which the first line of a paragraph is moved in."""


@dataclass(frozen=True, slots=True)
class TextBox:
    """Text with the rectangle that it fills."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    ends: bool = False
    """True if a space is drawn after the character."""

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def read_page(characters: Iterable[TextBox]) -> str:
    """The text of a page in reading order: a line for each line, and an empty one between paragraphs.

    characters: as drawn. Spaces among them part words; where they are missing, distance does.
    """
    runs = _runs(_words(characters))
    return _paragraphs(_in_order(runs)) if runs else ""


def _words(characters: Iterable[TextBox]) -> list[TextBox]:
    """Characters that follow each other on one line, without a space or a gap, as words."""
    words: list[TextBox] = []
    parted = True
    for one in characters:
        if not one.text.strip():
            if words:
                words[-1] = replace(words[-1], ends=True)
            parted = True
        elif parted or not _continues(words[-1], one):
            words.append(one)
            parted = False
        else:
            words[-1] = _joined(words[-1], one, "")
    return words


def _continues(word: TextBox, one: TextBox) -> bool:
    size = min(word.height, one.height)
    gap = one.left - word.right
    return _beside(word, one) >= 0.5 * size and -0.5 * size <= gap <= WORD_GAP * max(word.height, one.height)


def _beside(one: TextBox, other: TextBox) -> float:
    """Height of the strip that both cross."""
    return min(one.bottom, other.bottom) - max(one.top, other.top)


def _joined(one: TextBox, other: TextBox, between: str) -> TextBox:
    """Both as one, as high as the larger type of the two; what is much larger (a brace) counts if it is longer."""
    measure = one if one.height >= other.height else other
    if measure.height > TALL * min(one.height, other.height):
        measure = one if one.width >= other.width else other
    left, right = min(one.left, other.left), max(one.right, other.right)
    return TextBox(one.text + between + other.text, left, measure.top, right, measure.bottom, other.ends)


def _runs(words: Sequence[TextBox]) -> list[TextBox]:
    """Words that stand beside each other with no more than a wide space between them, from left to right."""
    words = [word for word in words if word.width > 0 and word.height > 0]
    runs: list[TextBox] = []
    last = np.zeros((4, len(words)))  # right, top, bottom, height of the last word of each run
    for word in sorted(words, key=lambda word: word.left):
        right, top, bottom, height = last[:, : len(runs)]
        least, most = np.minimum(height, word.height), np.maximum(height, word.height)
        gap = word.left - right
        beside = np.minimum(bottom, word.bottom) - np.maximum(top, word.top)
        fits = (beside >= 0.5 * least) & (gap >= -0.5 * least) & (gap <= RUN_GAP * most)
        if fits.any():
            place = int(np.argmin(np.where(fits, np.abs((top + bottom) / 2 - word.middle), np.inf)))
            space = runs[place].ends or gap[place] > WORD_GAP * least[place]
            runs[place] = _joined(runs[place], word, " " if space else "")
        else:
            place = len(runs)
            runs.append(word)
        last[:, place] = word.right, word.top, word.bottom, word.height
    return runs


def _in_order(runs: list[TextBox]) -> list[TextBox]:
    """The lines of a page; what stands apart at its head and foot is not part of a column."""
    head, body, foot = _margins(runs)
    return [*_rows(head), *_lines(body), *_rows(foot)]


def _margins(runs: list[TextBox]) -> tuple[list[TextBox], list[TextBox], list[TextBox]]:
    """The first and the last line of a page where space parts them from the rest, and that."""
    size = median(run.height for run in runs)
    rest = sorted(runs, key=lambda run: run.top)
    head: list[TextBox] = []
    bottom = rest[0].bottom
    for place, run in enumerate(rest):
        if run.top > bottom + 0.6 * size and bottom - rest[0].top < 2 * size:
            head, rest = rest[:place], rest[place:]
            break
        bottom = max(bottom, run.bottom)
    rest.sort(key=lambda run: -run.bottom)
    top = rest[0].top
    for place, run in enumerate(rest):
        if run.bottom < top - 0.6 * size and rest[0].bottom - top < 2 * size:
            return head, rest[place:], rest[:place]
        top = min(top, run.top)
    return head, rest, []


def _lines(runs: list[TextBox], sure: float | None = None) -> list[TextBox]:
    """The lines of a region: its columns from left to right, above and below the lines that cross them.

    sure: where a gutter is known to be, if the region is part of one that has columns.
    """
    if len(runs) < 2:
        return runs
    gutter = _gutter(runs) if sure is None else sure
    if gutter is None:
        return _rows(runs)
    crossing = [run for run in runs if run.left < gutter < run.right]
    crossing = [run for run in runs if any(_beside(run, one) >= 0.5 * run.height for one in crossing)]
    if sure is not None and not crossing and not _is_columns(runs, gutter):
        return _rows(runs)
    if not crossing:
        sides = [run for run in runs if run.right <= gutter], [run for run in runs if run.left >= gutter]
        return [line for side in sides for line in _lines(side)]
    lines: list[TextBox] = []
    left = [run for run in runs if run not in crossing]
    for row in _rows(crossing):
        above = [run for run in left if run.middle < row.middle]
        left = [run for run in left if run.middle >= row.middle]
        lines += [*_lines(above, gutter), row]
    return lines + _lines(left, gutter)


def _is_columns(runs: list[TextBox], gutter: float) -> bool:
    """Return whether runs on both sides of a gutter are lines of text. One side alone is a column too."""
    sides = [run for run in runs if run.right <= gutter], [run for run in runs if run.left >= gutter]
    return all(not side or median(run.width / run.height for run in side) >= COLUMN_WIDTH for side in sides)


def _gutter(runs: list[TextBox]) -> float | None:
    """Find the gutter between two columns: an x with lines on both sides, which few cross.

    Lines are looked at in strips of half a line; those count that have text on both sides and none across.
    """
    left_N, top_N, right_N, bottom_N = np.array([(run.left, run.top, run.right, run.bottom) for run in runs]).T
    size = float(np.median(bottom_N - top_N))
    strips_S = np.arange(top_N.min(), bottom_N.max(), size / 2) + size / 4
    covers_NS = (top_N[:, None] <= strips_S) & (strips_S < bottom_N[:, None])
    places_M = np.unique(left_N) - 0.3 * size
    before_MN = (right_N <= places_M[:, None]).astype(np.float32)
    behind_MN = (left_N >= places_M[:, None]).astype(np.float32)
    covers_NS = covers_NS.astype(np.float32)
    across_MS = (1 - before_MN - behind_MN) @ covers_NS > 0
    both_MS = (before_MN @ covers_NS > 0) & (behind_MN @ covers_NS > 0) & ~across_MS
    score_M = both_MS.sum(1)
    for place in np.argsort(-score_M, kind="stable"):
        if score_M[place] < 2 * COLUMN_LINES:
            return None
        beside_N = covers_NS @ both_MS[place] > 0
        near = [run for run, is_beside in zip(runs, beside_N, strict=True) if is_beside]
        if _is_columns(near, float(places_M[place])):
            return float(places_M[place])
    return None


def _rows(runs: list[TextBox]) -> list[TextBox]:
    """Runs that stand beside each other as lines, from top to bottom.

    Runs of ordinary height come first, so that a tall sign joins the line it is nearest to and does not make one of
    the lines beside it.
    """
    if not runs:
        return []
    size = median(run.height for run in runs)
    rows: list[list[TextBox]] = []
    for run in sorted(runs, key=lambda run: (abs(np.log(run.height / size)), run.top)):
        beside = [row for row in rows if _beside(row[0], run) >= 0.5 * min(row[0].height, run.height)]
        if beside:
            min(beside, key=lambda row: abs(row[0].middle - run.middle)).append(run)
        else:
            rows.append([run])
    rows.sort(key=lambda row: row[0].middle)
    return [_line(sorted(row, key=lambda run: run.left), row[0]) for row in rows]


def _line(row: list[TextBox], measure: TextBox) -> TextBox:
    """A row as one box as high as `measure`: small and raised signs do not make it higher."""
    text = " ".join(run.text for run in row)
    return TextBox(text, row[0].left, measure.top, max(run.right for run in row), measure.bottom)


def _paragraphs(lines: list[TextBox]) -> str:
    gaps = [below.top - above.bottom for above, below in pairwise(lines) if below.top > above.top]
    usual = median(gaps) if gaps else 0.0
    parts = [lines[0].text]
    for above, below in pairwise(lines):
        parts += ["\n\n" if _new_paragraph(above, below, usual) else "\n", below.text]
    return re.sub(r"[ \t]+", " ", "".join(parts))


def _new_paragraph(above: TextBox, below: TextBox, usual: float) -> bool:
    size = min(above.height, below.height)
    if max(above.height, below.height) > 1.2 * size:
        return True
    ended = above.text.rstrip("\"'”’)").endswith((".", "!", "?", ":"))
    if below.top < above.top or below.left > above.right:  # the next column: a sentence goes on
        return ended or above.text.endswith(("…", ";"))
    gap = below.top - above.bottom
    return gap > usual + PARAGRAPH_GAP * size or (ended and below.left > above.left + INDENT * size)
