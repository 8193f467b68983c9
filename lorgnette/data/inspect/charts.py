"""Histograms as inline SVG, without size of their own; colours come from the page by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 22, 40
"""Margins for labels, in pixels."""

Bars = list[tuple[str, list[int]]]
"""Each bar's label, and how many things of each source stand in it."""


def lengths(values: Sequence[tuple[int, int]], sources: int, bins: int = 16) -> Bars:
    """Bars of equal breadth over (value, source) pairs, with round bounds."""
    if not values:
        return []
    low, high = min(value for value, _ in values), max(value for value, _ in values)
    step = _round_up((high - low + 1) / bins)
    first = low // step * step
    bars: Bars = []
    for start in range(first, high + 1, step):
        counts = Counter(source for value, source in values if start <= value < start + step)
        label = f"{start:,}" if step == 1 else f"{start:,}–{start + step - 1:,}"
        bars.append((label, [counts[source] for source in range(sources)]))
    return bars


def percentages(values: Sequence[tuple[float, int]], sources: int) -> Bars:
    """Ten bars over (share of one, source) pairs."""
    bars: Bars = []
    for ten in range(10):
        counts = Counter(source for value, source in values if min(9, int(value * 10)) == ten)
        bars.append((f"{10 * ten}–{10 * ten + 10} %", [counts[source] for source in range(sources)]))
    return bars


def bar_chart(bars: Bars, of: str, unit: str) -> str:
    """Stacked bars. of: what is counted, in the plural; unit: what the bars are over."""
    if not bars:
        return ""
    most = max(sum(counts) for _, counts in bars) or 1
    breadth, floor = (WIDTH - LEFT - RIGHT) / len(bars), HEIGHT - BOTTOM
    parts = [_grid(tick, floor - tick / most * (floor - TOP)) for tick in sorted({0, -(-most // 2), most})]
    every = -(-len(bars) // 6)
    for place, (label, counts) in enumerate(bars):
        left, top = LEFT + place * breadth, float(floor)
        bar = []
        for source, count in enumerate(counts):
            tall = count / most * (floor - TOP)
            top -= tall
            if count:
                bar.append(
                    f'<rect class="f{source % 8}" x="{left + 1:.1f}" y="{top:.1f}"'
                    f' width="{max(1.0, breadth - 2):.1f}" height="{tall:.1f}"></rect>'
                )
        if bar:
            parts.append(f"<g><title>{escape(f'{sum(counts):,} {of}: {label} {unit}')}</title>{''.join(bar)}</g>")
        if place % every == 0:
            short = label.split("–")[0]
            parts.append(
                f'<text class="label mid" x="{left + breadth / 2:.1f}" y="{floor + 16}">{escape(short)}</text>'
            )
    parts.append(f'<text class="label end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">{escape(unit)} →</text>')
    parts.append(f'<text class="label" x="4" y="12">{escape(of)}</text>')
    total = sum(sum(counts) for _, counts in bars)
    return _svg(parts, f"Histogram of {total:,} {of} over {unit}, from {bars[0][0]} to {bars[-1][0]}")


def shape_chart(shapes: Sequence[tuple[int, int]]) -> str:
    """Each shape (rows, columns) as a circle: further right is wider, further up is taller, larger is oftener."""
    if not shapes:
        return ""
    counts = Counter(shapes)
    most, reach = max(counts.values()), max(max(shape) for shape in counts) + 1
    scale = min(WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM) / reach
    left, floor = (WIDTH + LEFT - RIGHT - reach * scale) / 2, HEIGHT - BOTTOM
    step = _round_up(reach / 5)
    parts = []
    for tick in range(step, reach + 1, step):
        x, y = left + tick * scale, floor - tick * scale
        parts.append(f'<line class="grid" x1="{left:.1f}" x2="{left + reach * scale:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}" y2="{floor - reach * scale:.1f}"/>')
        parts.append(f'<text class="label mid" x="{x:.1f}" y="{floor + 16}">{tick}</text>')
        parts.append(f'<text class="label end" x="{left - 6:.1f}" y="{y + 4:.1f}">{tick}</text>')
    for (rows, columns), count in counts.most_common():
        radius = max(2.5, 13 * math.sqrt(count / most))
        words = f"{count:,} of {rows} rows × {columns} columns"
        parts.append(
            f'<circle class="shape" cx="{left + columns * scale:.1f}" cy="{floor - rows * scale:.1f}"'
            f' r="{radius:.1f}"><title>{words}</title></circle>'
        )
    parts.append(f'<text class="label end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">columns of patches →</text>')
    parts.append('<text class="label" x="4" y="12">rows of patches</text>')
    (rows, columns), count = counts.most_common(1)[0]
    words = f"{len(shapes):,} images of {len(counts):,} shapes; the commonest has {rows} rows and {columns} columns of"
    return _svg(parts, f"{words} patches ({count:,} images)")


def _svg(parts: list[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _grid(tick: int, y: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="label end" x="{LEFT - 6}" y="{y + 4:.1f}">{tick:,}</text>'


def _round_up(value: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that is not less than `value`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= value:
                return factor * power
        power *= 10
